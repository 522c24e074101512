"""What runs do, for users; what GPU kernels hold and do without a GPU is found in lab/, of the repository.

    sampling, launches    a run by ops, its trace, one step for Nsight Compute; launches and bytes of a step in torch
    work                  least bytes and operations by formula, peaks of GPUs, modelled times
    cases                 every GPU kernel in the configurations that matter: for rooflines, and for lab
"""
