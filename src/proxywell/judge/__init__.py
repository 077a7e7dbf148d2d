"""The judge that we ship: signed answers about the request as it arrived."""
