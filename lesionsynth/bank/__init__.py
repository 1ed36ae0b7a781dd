"""The lesion bank: real lesions, harvested once, indexed, stored on disk."""
