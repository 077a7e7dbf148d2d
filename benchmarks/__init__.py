"""Measurements, each with a record: ``python -m benchmarks [NAME…]``."""
