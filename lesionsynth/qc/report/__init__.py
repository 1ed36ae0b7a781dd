"""The report of an output: one HTML file that needs nothing else."""
