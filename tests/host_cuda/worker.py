"""Runs CUDA ops of a stand-in build of alps_fast._cuda on CPU tensors; started by build.py with a sanitizer preloaded.

Reads (op, arguments, seed, environment variables) from stdin with torch.save, writes what the op returned, until stdin ends. A
list of arguments, which differ in tensors alone, is run as a graph: captured with the first, and replayed with each.
"""

import contextlib
import ctypes
import importlib.machinery
import importlib.util
import io
import os
import pickle
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import torch

sys.path.append(str(Path(__file__).parents[1]))
from tape import Tape

CALL = ctypes.CFUNCTYPE(None)


def alone(value):
    """A tensor in memory of exactly its size, so that what lies past its end is nobody's."""
    return value.clone() if isinstance(value, torch.Tensor) else [alone(v) for v in value] if isinstance(value, list) else value


class Graph(Tape):
    """torch's operators among the kernels of a graph of the stand-in."""

    def __init__(self, library):
        super().__init__()
        self.library, self.stream = library, ctypes.c_void_p(library.host_cuda_begin())

    def note(self, call):
        self.calls.append(CALL(call))
        self.library.host_cuda_record(self.stream, self.calls[-1])


def captured(library, function, calls):
    """What `function` returns for each of calls, captured once, and the max_iter that did not suffice up to then, or 0."""
    from alps_fast.ops import _cg

    mine, results = calls[0], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        function(**mine)  # as graphs are warmed up
    graph = Graph(library)
    torch.cuda.current_stream = lambda: SimpleNamespace(cuda_stream=graph.stream.value)
    torch.cuda.is_current_stream_capturing = lambda: True
    with graph:
        out = function(**mine)
    captured_graph = ctypes.c_void_p(library.host_cuda_end(graph.stream))
    plain()
    noted = _cg.in_graphs(out[0].device).zero_()  # a graph that is captured has not run
    for call in [alone_arguments(call) for call in calls]:
        for name, value in mine.items():
            if isinstance(value, torch.Tensor):
                value.copy_(call[name])
        for v in out:
            v.fill_(torch.nan)
        library.host_cuda_replay(captured_graph)
        results.append(([v.clone() for v in out], int(noted)))
    return results


def plain():
    """Nothing is being captured."""
    torch.cuda.current_stream = lambda: SimpleNamespace(cuda_stream=0)
    torch.cuda.is_current_stream_capturing = lambda: False


def alone_arguments(arguments):
    return {name: alone(value) for name, value in arguments.items()}


def main(path):
    loader = importlib.machinery.ExtensionFileLoader("alps_fast._cuda", path)
    import alps_fast.ops  # noqa: F401  whose child it becomes

    module = importlib.util.module_from_spec(importlib.util.spec_from_file_location("alps_fast._cuda", path, loader=loader))
    loader.exec_module(module)
    sys.modules["alps_fast._cuda"] = sys.modules["alps_fast"]._cuda = module
    torch.set_num_threads(1)
    torch.cuda.device = contextlib.nullcontext
    plain()
    from alps_fast.ops import _dispatch

    library = ctypes.CDLL(path)
    library.host_cuda_begin.restype = library.host_cuda_end.restype = ctypes.c_void_p
    out = sys.stdout.buffer
    while True:
        try:
            request = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        op, arguments, order, environment = torch.load(io.BytesIO(request))
        importlib.import_module(f"alps_fast.ops.{op}")
        function = _dispatch._implementations[op, "cuda"]
        library.host_cuda_seed(ctypes.c_uint64(order))
        answer = io.BytesIO()
        with patch.dict(os.environ, environment):
            if isinstance(arguments, list):
                result = captured(library, function, [alone_arguments(a) for a in arguments])
            else:
                result = function(**alone_arguments(arguments))
        torch.save(None if result is NotImplemented else result, answer)
        pickle.dump(answer.getvalue(), out)
        out.flush()


main(sys.argv[1])
