"""Ops are called directly where nobody watches, and through torch's dispatcher wherever it has something to do."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.flop_counter import FlopCounterMode

from alps_fast.energies import GaussianEnergy
from alps_fast.errors import ArgumentError
from alps_fast.operators import CartesianMRI
from alps_fast.ops import _dispatch, _step
from alps_fast.ops._dispatch import dispatch
from alps_fast.ops.langevin_fourier import langevin_fourier, quicker
from alps_fast.ops.moments import moments
from alps_fast.ops.philox_normal import philox_normal
from alps_fast.ops.ridge_grad import ridge_grad
from alps_fast.samplers import Schedule, sample

IDS = torch.arange(3)


def mean(x):
    nothing = torch.zeros(1, dtype=torch.int64), torch.zeros(1, 4), torch.zeros(1, 4)
    return moments(*nothing, x, torch.ones(len(x), dtype=torch.bool))[1]


def through_torch(monkeypatch, op):
    """Make `op` note each call of its torch operator in the list returned."""
    calls, traced = [], op.traced
    monkeypatch.setattr(op, "traced", lambda *args, **kwargs: calls.append(args) or traced(*args, **kwargs))
    return calls


def targets(graph):
    return [node.target for node in graph.graph.nodes if node.op == "call_function"]


def test_an_op_keeps_name_text_and_signature():
    import inspect

    assert philox_normal.__name__ == "philox_normal" and "Philox4x32-10" in philox_normal.__doc__
    assert list(inspect.signature(philox_normal).parameters) == ["ids", "n", "seed", "step", "tag", "backend"]


def test_eager_calls_skip_the_dispatcher(monkeypatch):
    calls = through_torch(monkeypatch, philox_normal)
    direct = philox_normal(IDS, 5, seed=1, step=2)
    assert not calls
    assert torch.equal(direct, torch.ops.alps_fast.philox_normal(IDS, 5, 1, 2))


def test_compiled_graphs_hold_the_op():
    graphs = []

    def keep(graph, _):
        graphs.append(graph)
        return graph

    torch._dynamo.reset()
    run = torch.compile(lambda ids: 2 * philox_normal(ids, 5, 1, 2), backend=keep, fullgraph=True)
    assert torch.equal(run(IDS), 2 * philox_normal(IDS, 5, 1, 2))
    assert torch.ops.alps_fast.philox_normal.default in targets(graphs[0])


def test_make_fx_and_export_hold_the_op():
    class Noise(torch.nn.Module):
        def forward(self, ids):
            return philox_normal(ids, 5, 1, 2)

    program = torch.export.export(Noise(), (IDS,))
    for graph in (make_fx(Noise())(IDS), program.graph_module):
        assert torch.ops.alps_fast.philox_normal.default in targets(graph)


def test_fake_tensors_meet_the_fake_implementation():
    mode = FakeTensorMode()
    with mode:
        fake = torch.arange(3)
        assert philox_normal(fake, 5, 1, 2).shape == (3, 5)
    outside = torch.ops.alps_fast.philox_normal(fake, 5, 1, 2)
    assert type(outside) is type(philox_normal(fake, 5, 1, 2)) is type(fake)


def test_dispatch_modes_see_the_op(monkeypatch):
    calls = through_torch(monkeypatch, philox_normal)
    with FlopCounterMode(display=False):
        philox_normal(IDS, 5, 1, 2)
    assert len(calls) == 1


def test_vmap_maps():  # and hands no kernel the pointer of a batched tensor
    x = torch.randn(2, 3, 4)
    assert torch.equal(torch.vmap(mean)(x), torch.stack([mean(part) for part in x]))


@pytest.mark.parametrize("place", ["x", "filters"])
def test_gradients_are_refused_rather_than_lost(place):
    x, filters = torch.randn(1, 1, 6, 6), [torch.randn(2, 1, 3, 3)]
    (x if place == "x" else filters[0]).requires_grad_()
    table = torch.ones(1, 1, 1, 2)
    grad, _ = ridge_grad(x, filters, table, table, torch.ones(1, 1), torch.zeros(1))
    with pytest.raises(RuntimeError, match="no autograd"):
        grad.sum().backward()
    with torch.no_grad():
        assert not ridge_grad(x, filters, table, table, torch.ones(1, 1), torch.zeros(1))[0].requires_grad


def test_a_kernel_that_does_not_take_the_arguments_leaves_them_to_the_next(monkeypatch):
    asked = []

    def backend(name, takes):
        return lambda x: asked.append(name) or (name if takes(x) else NotImplemented)

    for name, takes in (("cuda", lambda x: x > 2), ("cpu", lambda x: x > 1), ("torch", lambda x: True)):
        monkeypatch.setitem(_dispatch._implementations, ("made up", name), backend(name, takes))
    for name in ("cuda", "cpu"):
        monkeypatch.setitem(_dispatch._reasons, name, None)
    monkeypatch.setitem(_dispatch._reasons, "triton", "none here")
    monkeypatch.delenv("ALPS_FAST_BACKEND", raising=False)
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    for x, name, device, *wanted in ((2, "auto", cpu, "cpu"), (1, "auto", cpu, "cpu", "torch"), (1, "cpu", cpu, "cpu", "torch"),
                                     (3, "auto", gpu, "cuda"), (2, "cuda", gpu, "cuda", "torch"), (3, "torch", gpu, "torch")):
        asked.clear()
        assert dispatch("made up", name, device, x) == wanted[-1]
        assert asked == wanted
    with pytest.raises(ArgumentError, match="backend: got 'cuda'; wanted one for tensors on cpu"):
        dispatch("made up", "cuda", cpu, 1)


# --- what backend="auto" finds no kernel for -------------------------------------------------------------------------

def left_by(monkeypatch, why, backend="auto"):
    """What is told of an op that its CPU kernel leaves for this reason, twice over."""
    monkeypatch.setattr(_dispatch, "_told", set())
    monkeypatch.delenv("ALPS_FAST_BACKEND", raising=False)
    monkeypatch.setitem(_dispatch._reasons, "cpu", None)
    serve = {"cpu": lambda x: _dispatch.leaves(why) if why else NotImplemented, "torch": lambda x: x}
    for name, function in serve.items():
        monkeypatch.setitem(_dispatch._implementations, ("made up", name), function)
    monkeypatch.setitem(_dispatch._takes, ("made up", "cpu"), "little")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(2):
            with _dispatch.telling():
                assert [dispatch("made up", backend, torch.device("cpu"), 1) for _ in range(2)] == [1, 1]
    return [str(w.message) for w in told]


def test_an_op_that_leaves_its_kernel_says_so_once_with_the_reason(monkeypatch):
    assert left_by(monkeypatch, "109 is prime") == ["made up: 109 is prime; 'torch' ran it, more slowly"]
    assert left_by(monkeypatch, "") == []  # by its options, not by size
    assert left_by(monkeypatch, "109 is prime", "torch") == []
    named = "backend: 'cpu' takes made up for little alone; 'torch' ran it"
    assert left_by(monkeypatch, "109 is prime", "cpu") == [named, named]  # every run, as who asks for it by name wants it


def test_nothing_is_told_where_nobody_listens(monkeypatch):
    monkeypatch.setattr(_dispatch, "_told", set())
    _dispatch.slower("a kernel of warps runs")
    assert not _dispatch._told
    with pytest.warns(UserWarning, match="^a kernel of warps runs$"), _dispatch.telling():
        _dispatch.slower("a kernel of warps runs")


def test_operators_that_run_one_after_another_are_told_of_once(monkeypatch):
    """Where that takes longer: on a GPU, and where a thread has no row; not to whoever names the backend."""
    monkeypatch.setattr(_dispatch, "_told", set())
    monkeypatch.delenv("ALPS_FAST_BACKEND", raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    cases = [("triton", "meta", 64, "triton", False), ("triton", "meta", 64, "auto", True), ("cuda", "meta", 64, "auto", True),
             ("cuda", "meta", 64, "auto", False), ("cpu", "cpu", 8, "auto", False), ("cpu", "cpu", 6, "auto", True)]
    for name, device, rows, asked, told in cases:
        monkeypatch.setattr(_step, "resolved", lambda *_, name=name: name)
        monkeypatch.setitem(_dispatch._reasons, name, None)
        with warnings.catch_warnings(record=True) as notes, _dispatch.telling():
            warnings.simplefilter("always")
            x = torch.empty(rows, device=device)
            _step.tell_of_turns("some_op", asked, 2, x)
            assert _step.at_once(asked, x) == (name == "cpu")
        assert [str(w.message) for w in notes] == told * [
            f"some_op: {name!r} takes one operator a call; those of several measurements run one after another, more slowly"]


def test_a_run_of_several_operators_by_conjugate_gradients_says_so_once(monkeypatch):
    monkeypatch.setattr(_dispatch, "_told", set())
    monkeypatch.delenv("ALPS_FAST_BACKEND", raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    mask = torch.rand(2, 4, 6, generator=torch.Generator().manual_seed(0)) < 0.5
    op, y = CartesianMRI(mask.float(), torch.ones(1, 4, 6) + 0j, noise_std=0.1), torch.zeros(2, 1, 4, 6, dtype=torch.complex64)
    with pytest.warns(UserWarning, match="^langevin_sense_cg: .* takes one operator a call; .* one after another, more slowly$"):
        sample(y, op, GaussianEnergy(0.0, 1.0), chains=1, schedule=Schedule(1.0, 0.1, 2, 1), progress=False)
    sample(y, op, GaussianEnergy(0.0, 1.0), chains=1, schedule=Schedule(1.0, 0.1, 2, 1), progress=False)


@pytest.mark.parametrize(("height", "width", "is_complex", "slow"), [
    (619, 619, True, True), (619, 128, True, False), (811, 4, True, True), (4, 811, True, True), (587, 601, True, False),
    (1018, 4, True, False), (907, 953, False, True), (1021, 1000, False, False), (619, 619, False, False),
    (1031, 1021, True, False)])
def test_auto_takes_the_quicker_transform_of_large_primes(monkeypatch, height, width, is_complex, slow):
    """By the size alone; a backend that is named, in the call or around it, stays."""
    pytest.importorskip("alps_fast._cpu")
    monkeypatch.setattr(_dispatch, "_told", set())
    monkeypatch.delenv("ALPS_FAST_BACKEND", raising=False)
    x = torch.empty(1, height, width, 2 if is_complex else 1)
    with warnings.catch_warnings(record=True) as notes, _dispatch.telling():
        warnings.simplefilter("always")
        for _ in range(2):
            assert quicker("auto", x, 1, is_complex) == ("torch" if slow else "auto")
        with _dispatch.asked("cpu"):
            assert quicker("auto", x, 1, is_complex) == "auto"
        assert quicker("cpu", x, 1, is_complex) == "cpu" and quicker("auto", x.double(), 1, is_complex) == "auto"
        assert quicker("auto", x, 2, is_complex) == "auto"
    assert [str(w.message) for w in notes] == slow * [
        f"langevin_fourier: 'cpu' is slower than 'torch' for images {height} x {width}, whose sides have large prime factors; "
        "'torch' ran it"]


def test_bits_under_auto_are_those_of_the_transform_it_takes(monkeypatch):
    pytest.importorskip("alps_fast._cpu")
    monkeypatch.delenv("ALPS_FAST_BACKEND", raising=False)
    for side, same in ((811, "torch"), (601, "cpu")):
        g = torch.Generator().manual_seed(0)
        x, grad, b = (torch.randn(1, side, 3, 2, generator=g) for _ in range(3))
        arguments = x, grad, b, torch.fft.fft2(torch.rand(side, 3, generator=g)), 1, True, torch.zeros(1, 2, dtype=torch.int64)
        found = {name: langevin_fourier(*arguments, 2.0, 1.5, 0.7, 9.0, 3.0, 2, 7, 3, backend=name)
                 for name in ("auto", "cpu", "torch")}
        assert not torch.equal(found["cpu"][0], found["torch"][0])
        assert all(torch.equal(v, w) for v, w in zip(found["auto"], found[same], strict=True))


def test_a_run_on_sides_that_no_kernel_transforms_says_which(monkeypatch):
    pytest.importorskip("alps_fast._cpu")
    monkeypatch.setattr(_dispatch, "_told", set())
    monkeypatch.delenv("ALPS_FAST_BACKEND", raising=False)
    op = CartesianMRI((torch.rand(1031, 5, generator=torch.Generator().manual_seed(0)) < 0.5).float(), noise_std=0.1)
    y = torch.zeros(1031, 5, dtype=torch.complex64)
    with pytest.warns(UserWarning, match="langevin_fourier: 'cpu' has no transform of 1031 numbers, .* prime factor above 1021"):
        sample(y, op, GaussianEnergy(0.0, 1.0), chains=1, schedule=Schedule(1.0, 0.1, 2, 1), progress=False)
    sample(y, op, GaussianEnergy(0.0, 1.0), chains=1, schedule=Schedule(1.0, 0.1, 2, 1), progress=False)  # once a process


def test_a_module_that_is_there_and_cannot_be_imported_is_told(tmp_path, monkeypatch):
    """As one compiled for another machine would be, or one whose arguments are not all fields; what is not there is no news."""
    (tmp_path / "made_broken.py").write_text("raise ImportError('undefined symbol: made_up')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.warns(UserWarning, match=r"^made_broken cannot be imported \(undefined symbol.*, though it is there: other"):
        assert _dispatch._missing("made_broken") == "made_broken cannot be imported (undefined symbol: made_up)"
    assert _dispatch._missing("made_absent") == "made_absent cannot be imported (No module named 'made_absent')"
