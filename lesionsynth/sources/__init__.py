"""Sources of lesions: one file a kind."""
