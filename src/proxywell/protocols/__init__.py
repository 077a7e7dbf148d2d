"""Handshake machines: bytes in, one Step out. No socket, no clock."""
