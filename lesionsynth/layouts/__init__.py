"""Layouts of data sets on disk: one file a kind."""
