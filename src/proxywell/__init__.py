"""A self-refilling well of working proxies."""
