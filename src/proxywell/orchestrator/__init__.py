"""Brings up what a distributed refresh needs, watches over it, and stops it again."""
