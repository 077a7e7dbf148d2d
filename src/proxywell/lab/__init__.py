"""The simulated fleet that we ship: lists, proxies and judges on loopback."""
