"""Pictures of a host and a copy of it: slices, what differs, outlines, and mosaics of them."""
