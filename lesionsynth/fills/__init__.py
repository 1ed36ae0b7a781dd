"""Fills for removed lesions: one file a kind."""
