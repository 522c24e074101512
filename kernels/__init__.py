"""Triton kernels of alps_fast, one file an op, imported as `alps_fast.kernels`."""
