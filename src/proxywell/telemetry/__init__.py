"""Typed events and how they are shown: text for people, JSON on request."""
