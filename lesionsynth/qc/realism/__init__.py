"""Whether the synthetic looks like the real: features, distances, two-sample tests, copies, and a gate."""
