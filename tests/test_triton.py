"""Triton kernels against the torch reference, and to the bit against the C++ ones: their PTX for sm_80 run on the CPU by
ptxsim, which checks every address; and, in a process of its own as Triton wants it, the same tests under its interpreter.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from inputs import (
    NETWORK_LAW,
    PHILOX_IDS,
    PHILOX_SIZES,
    bits,
    conv_network,
    pixel_arguments,
    pixel_layouts,
    pixel_roundings,
    ridge_constants,
    single,
)
from sense_inputs import random_lines
from step_checks import check_noise_modes, check_rows_stand_alone, from_a_row, shifted

pytest.importorskip("triton")

import alps_fast.kernels.ridge_langevin as ridge_langevin_file
from alps_fast.kernels.conv_grad import conv_grad
from alps_fast.kernels.langevin_pixel import langevin_pixel
from alps_fast.kernels.langevin_sense import langevin_sense
from alps_fast.kernels.moments import moments
from alps_fast.kernels.philox_normal import philox_normal
from alps_fast.kernels.ridge_grad import ridge_grad
from alps_fast.kernels.ridge_langevin import ridge_langevin
from alps_fast.ops import conv_grad as conv_grad_op
from alps_fast.ops import langevin_pixel as langevin_pixel_op
from alps_fast.ops import moments as moments_op
from alps_fast.ops import philox_normal as philox_normal_op
from alps_fast.ops.langevin_sense import langevin_sense_reference
from alps_fast.ops.philox_normal import AVERAGED, INDEPENDENT, NO_NOISE
from alps_fast.ops.ridge_grad import ridge_grad_reference
from alps_fast.ops.ridge_langevin import ridge_langevin_reference
from lab.emulate import emulated, interpreting, recorded
from lab.ptxsim import _fma

# Images, and chains, measurements and a's batch and channels of langevin_pixel. The interpreter takes as long for a number as for
# a tile, so there each branch once: less than a quad, two blocks of chains, one of each measurement, two tiles with a quad at the
# end or half of one
PIXELS = {shape: pixel_layouts(shape) for shape in ((1, 1, 1), (1, 1, 3), (5, 1, 1), (3, 7, 2), (4, 16, 1), (13, 11, 3),
                                                    (27, 29, 3), (32, 32, 2))} if not interpreting() else {
    (1, 1, 1): [(1, 1, (1, 1))], (5, 1, 1): [(5, 1, (1, 1))], (3, 7, 2): [(4, 2, (2, 2))], (4, 4, 3): [(4, 2, (2, 1))],
    (13, 14, 3): [(2, 2, (2, 1))], (16, 12, 3): [(1, 1, (1, 3))]}


def ran(function: Callable[..., Any], *positional: Any, aligned: bool = True, **arguments: Any) -> Any:
    """Launches run: as Python where Triton interprets, else as PTX, for aligned pointers or, as slices of odd images are, not."""
    arguments.pop("backend", None)
    with nullcontext() if interpreting() else emulated(aligned):
        return function(*positional, **arguments)


def across(value):
    """The same numbers, other strides."""
    return value.mT.contiguous().mT


def apart(a):
    """The same call with numbers of chains that do not lie side by side."""
    return a | {"ids": a["ids"].repeat_interleave(2, 0)[::2]}


def same(got: torch.Tensor, want: torch.Tensor, law: float = 8 * 2**-24) -> bool:
    """To the bit where code was compiled. Interpreted, NumPy multiplies, whose BLAS chooses among its kernels by processor,
    threads and a number's place in a matrix; so what has products is held to their rounding, twice what a result may be off.
    """
    return bool((got - want).norm() <= law * want.norm()) if interpreting() else torch.equal(got, want)


def pixel(**arguments: Any) -> Any:
    return ran(langevin_pixel, **arguments)


@pytest.fixture(scope="module", autouse=True)
def interpreted(tmp_path_factory):
    """The same tests under the interpreter, in a process beside this one; the last test waits for it."""
    if interpreting():
        yield None
        return
    report = tmp_path_factory.mktemp("interpreted") / "report.txt"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    with report.open("w") as out:
        done = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
    yield done, report
    done.kill()  # where not all tests ran
    done.wait()


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch):
    """What Triton's interpreter does otherwise: it rounds an fma twice (until 3.9), cuts a float32 to bfloat16, and in 3.6 can
    make no integer of its own scalars under NumPy 2.4. A third of its time it computes whether integers overflow, to say nothing.
    """
    if not interpreting():
        return
    from triton.runtime import interpreter

    def fused(self, x, y, z):
        with np.errstate(all="ignore"):  # NaN and infinity are meant
            return interpreter.TensorHandle(_fma(x.data, y.data, z.data, 32), z.dtype.scalar)

    def rounded(self, source, kind):
        return interpreter.TensorHandle(torch.from_numpy(source.data).bfloat16().view(torch.uint16).numpy(), kind.scalar)

    def patched(tensor, scope, before=interpreter._patch_lang_tensor):
        before(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_fma", fused)
    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_fp_trunc", rounded)
    monkeypatch.setattr(interpreter, "_patch_lang_tensor", patched)
    builder = interpreter.interpreter_builder
    monkeypatch.setattr(builder, "options", replace(builder.options, sanitize_overflow=False))


@pytest.fixture(autouse=True)
def poisoned(monkeypatch):
    """New tensors, the scratch too, begin as NaN or the largest integer, unaligned, between guards that must stay so."""
    made = []

    def guarded(empty):
        def fresh(*positional, **named):
            like = empty(*positional, **named)
            poison = torch.nan if like.is_floating_point() or like.is_complex() else torch.iinfo(like.dtype).max
            buffer = torch.full((like.numel() + 132,), poison, dtype=like.dtype)
            made.append((buffer, poison))
            return buffer.as_strided(like.shape, like.stride(), 66)
        return fresh

    with monkeypatch.context() as patch:
        for owner, name in (torch, "empty"), (torch, "empty_like"), (torch.Tensor, "new_empty"):
            patch.setattr(owner, name, guarded(getattr(owner, name)))
        yield
    for buffer, poison in made:
        guards = torch.cat([buffer[:66], buffer[-66:]])
        assert (guards.isnan() if poison != poison else guards == poison).all()


# Numbers and ids: one tile and two, ending with a quad or not
DRAWS = [(n, PHILOX_IDS) for n in PHILOX_SIZES] if not interpreting() else [
    (1, PHILOX_IDS[:1]), (31, PHILOX_IDS), (1025, PHILOX_IDS[-2:]), (1028, PHILOX_IDS[-2:])]


@pytest.mark.parametrize("n, ids", DRAWS)
def test_philox_normal_has_the_bits_of_the_reference(n, ids):
    for seed, step, tag in ((0, 0, 0), (-1, 2**32 - 1, 2**32 - 1), (0x123456789ABCDEF, 250, 1)):
        want = philox_normal_op.philox_normal_reference(ids, n, seed, step, tag)
        assert torch.equal(bits(ran(philox_normal, ids, n, seed, step, tag, aligned=seed == 0)), bits(want))


@pytest.mark.parametrize("shape", PIXELS)
def test_langevin_pixel_is_the_reference(shape):
    """Law: twice what torch loses, 3.3 roundings of the terms; measured 3.9."""
    for n, b, layout in PIXELS[shape][::2]:
        a = pixel_arguments(n, b, layout, torch.float32, shape)
        a = {k: shifted(v) if isinstance(v, torch.Tensor) and v.is_floating_point() else v for k, v in a.items()}
        a["xi"] = torch.randn(a["x"].shape, generator=torch.Generator().manual_seed(2))
        for noise in (0, 1):
            a["noise"] = noise
            assert pixel_roundings(a, pixel(**a, aligned=False)) <= 6.6


@pytest.mark.parametrize("shape", PIXELS)
def test_langevin_pixel_has_the_bits_of_the_cpu_kernel(shape):
    pytest.importorskip("alps_fast._cpu")
    for n, b, layout in PIXELS[shape] if interpreting() else PIXELS[shape][1::2]:
        a = pixel_arguments(n, b, layout, torch.float32, shape, "cpu")
        xi = across(torch.randn(a["x"].shape, dtype=torch.float64))
        for noise, given in ((NO_NOISE, None), (INDEPENDENT, None), (AVERAGED, None), (AVERAGED, xi)):
            a |= {"noise": noise, "seed": -3, "step": 2**32 - 2, "xi": given}
            want = langevin_pixel_op.langevin_pixel(**a)
            assert all(torch.equal(w, g) for w, g in zip(want, pixel(**a), strict=True))


@pytest.mark.parametrize("shape", [(5, 4, 3)] if interpreting() else [(1, 2, 1), (5, 4, 3), (31, 23, 3)])
def test_langevin_pixel_does_what_every_step_must(shape):
    ids = torch.tensor([[0, 0], [1, 0], [5, 0], [7, 9], [2**31, 9], [2**32 - 1, 2**24 - 1]])
    a = pixel_arguments(6, 2, (1, 1), torch.float32, shape) | {"ids": ids}
    check_noise_modes(pixel, a, tuple(a["x"].shape))
    check_rows_stand_alone(pixel, a)
    assert pixel(**pixel_arguments(2, 1, (1, 1), torch.float64, shape)) is NotImplemented


def test_langevin_pixel_takes_strided_chains_and_leaves_a_broken_chain_alone():
    a = pixel_arguments(4, 1, (1, 1), torch.float32)
    want = pixel(**a)
    assert torch.equal(want[0], pixel(**apart(a))[0])
    a["x"][1], a["grad"][2] = torch.nan, torch.inf
    for w, g in zip(want, pixel(**a), strict=True):
        assert torch.equal(w[[0, 3]], g[[0, 3]]) and not g[1:3].isfinite().any()


@pytest.mark.skipif(interpreting(), reason="counts are those of compiled code")
@pytest.mark.parametrize("chains", [4, 16])
def test_langevin_pixel_moves_little_more_than_it_must(chains):
    """x, grad read and x⁺, m written once a chain, b and a once: 1.1 times that many sectors measured."""
    a = pixel_arguments(chains, 1, (1, 1), torch.float32, (32, 32, 3))
    floor = 4 * (4 * a["x"].numel() + a["b"].numel() + a["a"].numel()) // 32
    with emulated() as done:
        langevin_pixel(**{k: v for k, v in a.items() if k != "backend"})
    [(_, count)] = done
    assert floor <= count["global_load_sectors"] + count["global_store_sectors"] <= 1.2 * floor
    assert count["global_store_requests"] * 512 == count["global_store_bytes"]  # a warp stores 16 bytes a lane
    assert count["barriers"] == 0


@pytest.mark.parametrize("shape", [(), (1,), (2, 1), (5, 1), (127,), (13, 11, 3), (132,)])
def test_moments_has_the_bits_of_the_reference(shape):
    for groups, rows in ((1, 1), (1, 17), (3, 21), (5, 5)):
        x, keep = 3 + torch.randn(rows, *shape), torch.rand(rows) < 0.7
        state = (torch.arange(groups) + 2, torch.randn(groups, *shape), torch.rand(groups, *shape))
        want = moments_op.moments(*state, x, keep, "torch")
        x[~keep] = torch.nan
        assert all(torch.equal(w, g) for w, g in zip(want, ran(moments, *state, x, keep), strict=True))


def test_moments_counts_past_the_integers_of_float32_and_takes_strided_rows_but_no_strided_state():
    state = torch.tensor([2**24, 0, 5])[::2], torch.zeros(2, 3, 4), torch.zeros(2, 3, 4)
    x, keep = torch.randn(6, 4, 3).mT, torch.tensor([1, 0, 0, 1, 1, 1, 1, 1, 0, 0, 1, 0], dtype=torch.bool)[::2]
    want = moments_op.moments(*state, x, keep, "torch")
    assert all(torch.equal(w, g) for w, g in zip(want, ran(moments, *state, x, keep, aligned=False), strict=True))
    strided = state[0], torch.zeros(2, 4, 3).mT, state[2]
    assert ran(moments, *strided, x, keep) is NotImplemented


def wide(value):
    if isinstance(value, list):
        return [v.double() for v in value]
    if isinstance(value, torch.Tensor) and value.is_complex():
        return value.to(torch.complex128)
    return value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


# lines of one block of outputs and of two, chains of one block and of two, measurements; one kernel alone as PTX
LINES = [(1, (2, 70), 3, 1, 2)] if not interpreting() else [
    (0, (1, 1), 1, 1, 2), (0, (5, 3), 6, 2, 1), (1, (5, 4), 17, 1, 2), (0, (70, 2), 4, 2, 2), (1, (3, 17), 2, 1, 0)]


def lines(axis, size, n, b, noise):
    a = random_lines(size, axis, n, b) | {"noise": noise, "seed": -3, "step": 2**32 - 2}
    a.pop("backend")
    return a | {"ids": a["ids"] + torch.tensor([2**31, 0]), "u": a["u"].conj_physical().conj()}


@pytest.mark.parametrize("axis, size, n, b, noise", LINES)
def test_langevin_sense_is_the_reference(axis, size, n, b, noise):
    """Law: twice what torch loses, and no less than four roundings; measured 1.1 of torch's."""
    a = lines(axis, size, n, b, noise)
    a |= {k: shifted(a[k]) for k in ("x", "grad", "b", "eigenvalues")}
    got = ran(langevin_sense, **apart(a))
    assert all(same(u, g) for g, u in zip(got, ran(langevin_sense, **a, aligned=False), strict=True))
    if not interpreting():
        last = a | {k: a[k][-1:] for k in ("x", "grad", "b", "ids")}
        assert all(torch.equal(o[0], g[-1]) for o, g in zip(ran(langevin_sense, **last, aligned=False), got, strict=True))
    exact, torchs = (langevin_sense_reference(**{k: f(v) for k, v in a.items()}) for f in (wide, lambda v: v))
    for g, e, t in zip(got, exact, torchs, strict=True):
        assert (g - e).norm() <= max(2 * (t - e).norm(), 4 * 2**-24 * e.norm())


@pytest.mark.skipif(not interpreting(), reason="many variants, each long to compile")
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_langevin_sense_does_what_every_step_must():
    a = lines(0, (3, 2), 18, 2, 1)
    check_noise_modes(partial(ran, langevin_sense), a, tuple(a["x"].shape), same)
    check_rows_stand_alone(partial(ran, langevin_sense), a, same)
    assert langevin_sense(**{k: wide(v) for k, v in a.items()}) is NotImplemented
    xi = torch.randn(a["x"].shape)
    assert same(langevin_sense(**a, xi=xi)[0], langevin_sense(**a, xi=across(xi.double()))[0])
    assert torch.equal(*langevin_sense(**a | {"noise": NO_NOISE}, xi=xi))
    want = langevin_sense(**a)
    a["x"][1], a["grad"][2] = torch.nan, torch.inf
    for w, g in zip(want, langevin_sense(**a), strict=True):
        assert same(g[[0, *range(3, 18)]], w[[0, *range(3, 18)]]) and not g[1:3].isfinite().any()


def worst(got, exact, torchs):
    """Largest errors over the law: twice what torch loses, and no less than four roundings of the largest."""
    return max((g - e).abs().max() / max(2 * (t - e).abs().max(), 4 * 2**-24 * e.abs().max())
               for g, e, t in zip(got, exact, torchs, strict=True))


# A kernel of filters takes long to compile: as PTX one configuration of its own a case, all others under the interpreter.
# Channels; size, of a tile or two; scales, filters (one group, two), side and potentials
RIDGES = [(1, (7, 13), (2, 4, 5, 2))] if not interpreting() else [
    (1, (1, 1), (1, 4, 5, 1)), (1, (7, 13), (2, 17, 5, 2)), (2, (9, 11), (1, 4, 7, 1))]


@pytest.mark.parametrize("c, size, bank", RIDGES)
def test_ridge_grad_is_the_reference(c, size, bank):
    """Measured 0.8 of torch's error. Images with tables of their own; one of them, whatever there is beside it, with such as are
    of each image, the same for all, and such as are of all.
    """
    filters, w, r, q, mu = ridge_constants(*bank, images=2, dtype=torch.float32)
    x, w, r, q = across(torch.randn(2, c, *size)), across(w), across(r), across(q[:-1])
    tables = filters, w, r, q, mu
    got = ran(ridge_grad, x, *tables)
    assert worst(got, ridge_grad_reference(wide(x), *map(wide, tables)), ridge_grad_reference(x, *tables)) <= 1
    one = ran(ridge_grad, x[:1].expand_as(x), filters, w[:, :, :1].expand_as(w), r[:, :, :1], q[:, :1], mu, aligned=False)
    assert all(same(o, g[:1].expand_as(o)) for o, g in zip(one, got, strict=True))


@pytest.mark.skipif(not interpreting(), reason="a variant that takes long to compile, for little")
def test_ridge_grad_without_its_value():
    """The same gradient, no value; w of each image, r of all."""
    filters, w, r, q, mu = ridge_constants(images=2, dtype=torch.float32)
    x, tables = torch.randn(2, 1, 3, 5), (filters, w, r[:, :, :1], q, mu)
    want, _ = ridge_grad_reference(x, *tables)
    grad, value = ran(ridge_grad, x, *tables, want_value=False)
    assert value.shape == (0,)
    torch.testing.assert_close(grad, want, rtol=1e-5, atol=1e-6)
    assert same(grad, ran(ridge_grad, x, *tables)[0])


def ridge_steps(n, b, shape, channels, noise, a=(1, 1), images=1):
    """`images`: of how many the tables are."""
    given = pixel_arguments(n, b, a, torch.float32, shape) | {"count": 2, "noise": noise, "channels": channels}
    given.pop("backend"), given.pop("grad")
    filters, weights, r, q, mu = ridge_constants(2, 4, 3, 2, images, torch.float32)
    return given | {"filters": filters, "weights": across(weights.abs()), "r": across(r), "q": q[:-1], "mu": mu}


# Chains, measurements, state, channels of an image, noise, a's batch and channels, images of the tables. Numbers of a quad in
# turn or in pairs, more than a block takes at a time; two numbers of a pair in two images; two images of two channels
RIDGE_STEPS = [(2, 2, (7, 13, 2), 1, 2, (2, 1), 4)] if not interpreting() else [
    (1, 1, (37, 14, 1), 1, 2, (1, 1), 1), (2, 1, (19, 14, 2), 2, 1, (1, 2), 1), (4, 2, (5, 3, 2), 1, 2, (2, 1), 8),
    (2, 2, (2, 3, 4), 2, 1, (2, 4), 4), (1, 1, (1, 2, 1), 1, 0, (1, 1), 1)]


@pytest.mark.parametrize("n, b, shape, channels, noise, a, images", RIDGE_STEPS)
def test_ridge_langevin_is_the_reference(n, b, shape, channels, noise, a, images, monkeypatch):
    """Two steps in one launch; the bits of an image alone, of larger images' launches of a tile a block, and of given noise."""
    a = ridge_steps(n, b, shape, channels, noise, a, images)
    got = ran(ridge_langevin, **apart(a))
    assert worst(got, *(ridge_langevin_reference(**{k: f(v) for k, v in a.items()}) for f in (wide, lambda v: v))) <= 1
    if images > 1 and b == n:  # the first chain twice
        first = {k: a[k][:1].repeat_interleave(2, 0) for k in ("x", "b", "a", "ids")}
        first |= {k: a[k][:, :, :images // 2].repeat(1, 1, 2, 1) for k in ("weights", "r")}
        twice = ran(ridge_langevin, **a | first | {"q": a["q"][:, :images // 2].repeat(1, 2)}, aligned=False)
        assert all(same(t, g[:1].expand_as(t)) for t, g in zip(twice, got, strict=True))
    if not interpreting():
        return
    if b == 2 and n == 4:
        monkeypatch.setattr(ridge_langevin_file, "ALONE", 0)
        assert all(same(o, g) for o, g in zip(ran(ridge_langevin, **a), got, strict=True))
    if b == 1 and n == 2:
        drawn = [philox_normal_op.philox_normal(a["ids"], a["x"][0].numel(), a["seed"], k, 1, backend="torch").view_as(a["x"])
                 for k in (a["step"], a["step"] + 1)]
        xi = torch.stack(drawn, 1).transpose(0, 1)
        assert all(same(o, g) for o, g in zip(ran(ridge_langevin, **a, xi=xi), got, strict=True))


def test_ridge_langevin_is_one_launch_a_call():
    """Above `ALONE` pixels it is two a scale and step."""
    for shape, launches in ((64, 64, 3), 1), ((128, 128, 1), 1), ((129, 128, 1), 2 * 2 * 3):
        with recorded() as made:
            ridge_langevin(**ridge_steps(3, 1, shape, 1, 2))
        assert len(made) == launches


# Channels, width, blocks, size, levels of FiLM and of EDM, precision: widths and channels of the cases that are compiled anyway;
# under the interpreter the others, one of two tiles
NETWORKS = [(1, 32, (0, 0, 1), (7, 13), 2, 2, "high"), (2, 64, (0, 0, 1), (7, 13), 1, 1, "fast")] if not interpreting() else [
    (4, 32, (0, 1, 0), (15, 21), 2, 1, "high"), (1, 32, (0, 0, 1), (7, 13), 1, 2, "fast")]


@pytest.mark.parametrize("channels, width, blocks, size, films, edms, precision", NETWORKS)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # the broken image's c as a byte, interpreted before 3.8
def test_conv_grad_is_the_reference(channels, width, blocks, size, films, edms, precision):
    """Law: that of the CPU kernel; measured 2.5e-7 and 6e-3. Two images, of a level each; one is bitwise the same beside a broken
    one, and with a level that is the same for all.
    """
    weights, scale, shift, coefficients, blocks = conv_network(channels, width, blocks)
    scale, shift = (torch.cat([v, 0.6 * v], 1)[:, :films] for v in (scale, shift))
    coefficients = torch.cat([coefficients, coefficients * torch.tensor([[0.5], [0.7], [0.8]])], 1)[:, :edms]
    x = across(torch.randn(2, channels, *size, dtype=torch.float64))
    weights32, *vectors, _ = single((weights, *map(across, (scale, shift, coefficients)), blocks))
    got = ran(conv_grad, x.float(), weights32, *vectors, blocks, precision, aligned=precision == "fast")
    grad, energy = conv_grad_op.conv_grad_reference(x, weights, scale, shift, coefficients, blocks)
    for g, e, value, exact in zip(got[0], grad, got[1], energy, strict=True):
        assert (g - e).norm() / e.norm() < NETWORK_LAW[precision]
        torch.testing.assert_close(value.double(), exact, rtol=NETWORK_LAW[precision], atol=0)
    if interpreting():  # as PTX one run is long enough
        x[1, 0, 3, 3] = torch.nan
        broken = ran(conv_grad, x.float(), weights32, *(v[:, :1].expand_as(v) for v in vectors), blocks, precision)
        assert all(same(g[:1], w[:1], NETWORK_LAW[precision]) for w, g in zip(got, broken, strict=True))
        assert broken[0][1].isnan().any() and broken[1][1].isnan()


@pytest.mark.skipif(not interpreting(), reason="without a GPU the backend runs under the interpreter alone")
def test_the_backend_answers_to_its_name():
    a = pixel_arguments(3, 1, (1, 1), torch.float32, backend="triton")
    assert all(torch.equal(w, g) for w, g in zip(pixel(**a), langevin_pixel_op.langevin_pixel(**a), strict=True))
    drawn = philox_normal_op.philox_normal(PHILOX_IDS, 13, 1, 2, backend="triton")
    assert torch.equal(drawn, philox_normal_op.philox_normal(PHILOX_IDS, 13, 1, 2, backend="torch"))


def test_importing_alps_fast_imports_no_triton():
    code = "import sys, alps_fast, alps_fast.kernels; sys.exit('triton.runtime' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.skipif(interpreting(), reason="this is what waits for the interpreter")
def test_everything_here_under_the_interpreter(interpreted):
    done, report = interpreted
    assert done.wait() == 0, report.read_text()


def test_a_level_in_memory_has_the_bits_of_its_numbers():
    for function, a in ((langevin_pixel, pixel_arguments(2, 1, (1, 1), torch.float32, (3, 7, 2)) | {"noise": INDEPENDENT}),
                        (langevin_sense, lines(1, (3, 4), 2, 1, AVERAGED)),
                        (ridge_langevin, ridge_steps(1, 1, (4, 5, 1), 1, AVERAGED))):
        a.pop("backend", None)
        got, want = ran(function, **from_a_row(a)), ran(function, **a)
        assert all(torch.equal(g, w) for g, w in zip(got, want, strict=True))
