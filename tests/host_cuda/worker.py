"""Runs CUDA ops of a stand-in build of alps_fast._cuda on CPU tensors; started by build.py with a sanitizer preloaded.

Reads (op, arguments, seed) from stdin with torch.save, writes what the op returned, until stdin ends.
"""

import contextlib
import ctypes
import importlib.machinery
import importlib.util
import io
import pickle
import sys
from types import SimpleNamespace

import torch


def alone(value):
    """A tensor in memory of exactly its size, so that what lies past its end is nobody's."""
    return value.clone() if isinstance(value, torch.Tensor) else [alone(v) for v in value] if isinstance(value, list) else value


def main(library):
    loader = importlib.machinery.ExtensionFileLoader("alps_fast._cuda", library)
    import alps_fast.ops  # noqa: F401  whose child it becomes

    module = importlib.util.module_from_spec(importlib.util.spec_from_file_location("alps_fast._cuda", library, loader=loader))
    loader.exec_module(module)
    sys.modules["alps_fast._cuda"] = sys.modules["alps_fast"]._cuda = module
    torch.set_num_threads(1)
    torch.cuda.device = contextlib.nullcontext
    torch.cuda.current_stream = lambda: SimpleNamespace(cuda_stream=0)
    from alps_fast.ops import _dispatch

    seed = ctypes.CDLL(library).host_cuda_seed
    out = sys.stdout.buffer
    while True:
        try:
            request = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        op, arguments, order = torch.load(io.BytesIO(request))
        importlib.import_module(f"alps_fast.ops.{op.removesuffix('_cg')}")  # langevin_sense's file has both its ops
        arguments = {name: alone(value) for name, value in arguments.items()}
        seed(ctypes.c_uint64(order))
        answer = io.BytesIO()
        result = _dispatch._implementations[op, "cuda"](**arguments)
        torch.save(None if result is NotImplemented else result, answer)
        pickle.dump(answer.getvalue(), out)
        out.flush()


main(sys.argv[1])
