"""Quality control: what a finished output is worth."""
