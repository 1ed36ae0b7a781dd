"""Contracts of everything that has a ``kind``, and the registry that collects it."""
