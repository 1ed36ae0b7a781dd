"""Recipes: the YAML file, its schema, its lock."""
