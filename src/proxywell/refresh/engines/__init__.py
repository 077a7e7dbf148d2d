"""How doorbells reach workers."""
