"""Read public lists of proxies: bytes in, candidates out."""
