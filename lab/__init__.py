"""The laboratory: what GPU kernels hold, move and compute, found without a GPU. `python -m lab --check` is part of .ci/run.

    command               the command line, and what it prints
    emulate               Triton's launches recorded, compiled for any GPU, run as PTX
    host                  CUDA C++'s launches as its own host code makes them, on a stand-in of CUDA's runtime
    cuda, nvcc            those launches run as PTX, and cases; what nvcc makes of sources
    ptxsim                runs the PTX of both on the CPU, checks every address, counts
    static                registers, spills, shared memory, occupancy and widths of both, from their machine code
    report                all of that for every case, beside baseline.json, which holds what may not get worse
"""
