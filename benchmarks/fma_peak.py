"""The processor's own float32 peak: independent fma in registers, on as many threads as torch uses."""

import ctypes
import functools
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import torch

SOURCE = """
#include <stdint.h>
#define EACH _Pragma("GCC unroll 16") for (int i = 0; i < SUMS; ++i)  /* in registers only if unrolled */
typedef float V __attribute__((vector_size(LANES * 4)));
float run(int64_t rounds, int threads) {
  float sum = 0;
#pragma omp parallel num_threads(threads) reduction(+ : sum)
  {
    V x[SUMS], a = (V){} + 0.999f, b = (V){} + 0.001f;
    EACH x[i] = (V){} + (float)i;
    for (int64_t k = 0; k < rounds; ++k) EACH x[i] = x[i] * a + b;
    EACH sum += x[i][0];
  }
  return sum;
}
"""
AVX512 = 16, ["-mavx512f"]
WIDTHS = {"avx512": AVX512, "avx512bf16": AVX512, "amx": AVX512, "avx2": (8, ["-mavx2", "-mfma"]), "portable": (4, [])}


@functools.cache
def fma_peak(isa: str) -> float | None:
    """float32 operations a second of an instruction set, two a fma (portable: a product and a sum); None without a C compiler.

    The best of 25 runs, spread over more than a second.
    """
    if shutil.which("cc") is None:
        return None
    lanes, flags = WIDTHS[isa]
    sums, rounds, threads = 12, 200_000, torch.get_num_threads()
    with tempfile.TemporaryDirectory() as directory:
        source, library = Path(directory, "peak.c"), Path(directory, "peak.so")
        source.write_text(SOURCE)
        constants = [f"-DLANES={lanes}", f"-DSUMS={sums}"]
        subprocess.run(["cc", "-O2", "-fopenmp", "-shared", "-fPIC", *constants, *flags, source, "-o", library], check=True)
        run = ctypes.CDLL(str(library)).run
    run.argtypes, run.restype = [ctypes.c_int64, ctypes.c_int], ctypes.c_float
    seconds = []
    for _ in range(25):
        time.sleep(0.03)
        began = time.perf_counter()
        run(rounds, threads)
        seconds.append(time.perf_counter() - began)
    return 2 * lanes * sums * rounds * threads / min(seconds)
