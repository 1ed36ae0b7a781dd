"""Edits of one host: the canvas, inserting a lesion, removing one. Operations are made of these."""
