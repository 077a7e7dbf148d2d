"""Remember members and choose among them."""
