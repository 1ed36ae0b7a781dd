"""What lesionsynth talks about: frozen dataclasses without any I/O."""
