"""Triton kernels of alps_fast, one file an op, imported as `alps_fast.kernels`; importing this much needs no Triton.

A file's function of the op's name takes what the op's reference takes and returns what that returns.
"""
