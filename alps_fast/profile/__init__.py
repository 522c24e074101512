"""What GPU kernels do, found without a GPU: their compiled code run on the CPU (`ptxsim`), and its static facts."""
