"""Homes of the books: the same rules, kept in memory, in SQLite, or elsewhere."""
