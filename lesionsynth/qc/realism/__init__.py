"""Does the synthetic look like the real? Features, distances, two-sample tests, memorised lesions, and a gate."""
