"""What runs and GPU kernels do, and what of the latter is found without a GPU.

    sampling, launches    a run by ops, its trace, one step for Nsight Compute; launches and bytes of a step in torch
    roofline              every op as measured here and as modelled for GPUs, as a picture
    work                  least bytes and operations by formula, peaks of GPUs, modelled times
    cases, emulate        Triton's: configurations, and their launches recorded, compiled for any GPU, run as PTX
    cuda, nvcc            CUDA C++'s: launches and configurations, packed as the hosts in csrc/cuda do; what nvcc makes of sources
    ptxsim                runs the PTX of both on the CPU, checks every address, counts
    static                registers, spills, shared memory, occupancy and widths of both, from their machine code
    report                all of that for every case, beside baseline.json, which holds what may not get worse
"""
