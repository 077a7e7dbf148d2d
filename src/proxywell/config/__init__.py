"""Settings: one tree with units, ranges, cross-checks and origins."""
