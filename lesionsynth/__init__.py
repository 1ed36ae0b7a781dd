"""lesionsynth: larger, better lesion-segmentation data sets from real NIfTI data."""

__version__ = "0.1.0"
