"""Pure array kernels: arrays in, arrays out."""
