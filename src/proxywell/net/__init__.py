"""The only room that handles raw sockets."""
