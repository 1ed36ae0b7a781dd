"""Blends: one file a kind."""
