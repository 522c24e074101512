"""ridge_langevin: steps are the composition of ridge_grad and langevin_pixel, to the bit in the kernels."""

from __future__ import annotations

import inspect

import pytest
import torch
from inputs import ridge_constants, ridge_steps
from step_checks import in_double

from alps_fast.errors import ArgumentError
from alps_fast.ops.langevin_pixel import langevin_pixel
from alps_fast.ops.philox_normal import AVERAGED, INDEPENDENT, NO_NOISE
from alps_fast.ops.ridge_grad import ridge_grad
from alps_fast.ops.ridge_langevin import ridge_langevin


@pytest.mark.parametrize("noise", [NO_NOISE, AVERAGED])
@pytest.mark.parametrize("channels, groups", [(1, 3), (2, 1)])
def test_ridge_langevin_is_the_composition(noise, channels, groups):
    filters, w, r, q, mu = ridge_constants(dtype=torch.float32)
    x, b = torch.randn(2, 9, 7, channels * groups), torch.randn(1, 9, 7, channels * groups)
    a, ids = torch.rand(1, 9, 7, 1), torch.tensor([0, 5])
    scalars = {"lam": 2.0, "lin": 1.5, "w": 1.0, "inv_eta2": 4.0, "noise_lam": 2.0, "noise": noise, "seed": 9}
    out, mean = ridge_langevin(x, b, a, ids, filters, w, r, q, mu, channels, step=4, count=3, **scalars)
    for k in range(3):
        images = x.movedim(-1, 1).reshape(-1, channels, 9, 7)
        grad = ridge_grad(images, filters, w, r, q, mu)[0].reshape(2, -1, 9, 7).movedim(1, -1).contiguous()
        x, m = langevin_pixel(x, grad, b, a, ids, step=4 + k, **scalars)
    torch.testing.assert_close(out, x, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(mean, m, rtol=1e-5, atol=1e-5)


def test_ridge_langevin_opcheck_given_noise_and_bad_arguments():
    filters, w, r, q, mu = ridge_constants(dtype=torch.float32)
    x, a, ids = torch.randn(2, 6, 6, 1), torch.ones(1, 6, 6, 1), torch.arange(2)
    args = (x, x.clone(), a, ids, filters, w, r, q, mu, 1, 2.0, 1.0, 1.0, 1.0, 2.0, AVERAGED, 0, 0, 2)
    torch.library.opcheck(ridge_langevin.traced, args)
    still = ridge_langevin(*args[:-4], NO_NOISE, 0, 0, 2)[0]
    torch.testing.assert_close(ridge_langevin(*args, xi=torch.zeros(2, *x.shape))[0], still)
    good = dict(zip(inspect.signature(ridge_langevin).parameters, args, strict=False))
    bad = [("count", 0), ("xi", torch.zeros(1, *x.shape)), ("channels", 2), ("channels", 0), ("b", x.double()), ("b", x[:, 1:]),
           ("a", a.double()), ("a", a[:, 1:]), ("filters", [f.double() for f in filters]), ("weights", w.double()),
           ("weights", w.expand(-1, -1, 3, -1)), ("r", r[:1]), ("q", q.to("meta")), ("mu", mu.double()), ("step", 2**32 - 2)]
    for name, value in bad:
        with pytest.raises(ArgumentError, match=f"^{name}: got"):
            ridge_langevin(**good | {name: value})


def composition(a, xi=None):
    """The same steps by the two ops."""
    x, mean = a["x"], a["x"]
    shared = {k: a[k] for k in ("b", "a", "ids", "lam", "lin", "w", "inv_eta2", "noise_lam", "noise", "seed", "backend")}
    for k in range(a["count"]):
        images = x.movedim(-1, 1)
        flat = images.reshape(-1, a["channels"], *images.shape[2:])
        grad = ridge_grad(flat, a["filters"], a["weights"], a["r"], a["q"], a["mu"], want_value=False, backend=a["backend"])[0]
        x, mean = langevin_pixel(x, grad.reshape(images.shape).movedim(1, -1).contiguous(), step=a["step"] + k,
                                 xi=None if xi is None else xi[k], **shared)
    return x, mean


@pytest.mark.parametrize("noise", [NO_NOISE, INDEPENDENT, AVERAGED])
@pytest.mark.parametrize("shape, channels", [((1, 1, 1), 1), ((9, 7, 3), 1), ((40, 31, 2), 2), ((75, 20, 4), 2)])
def test_cpu_is_the_composition_to_the_bit(isa, shape, channels, noise, guarded, threads):
    for count, n, b in ((1, 1, 1), (2, 3, 1), (3, 4, 2)):
        threads(count)
        images = n * shape[2] // channels if n == 3 else 1
        a = ridge_steps(n, b, shape, channels, (b, shape[2] if n == 4 else 1), images) | {"noise": noise}
        want = composition(a)
        assert all(torch.equal(w, g) for w, g in zip(want, ridge_langevin(**a), strict=True))
        if noise == INDEPENDENT:
            xi = torch.randn(a["count"], *a["x"].shape)
            assert all(torch.equal(w, g) for w, g in zip(composition(a, xi), ridge_langevin(**a, xi=xi), strict=True))
    guarded()


@pytest.mark.gpu
@pytest.mark.parametrize("noise", [NO_NOISE, INDEPENDENT, AVERAGED])
@pytest.mark.parametrize("shape, channels", [((1, 1, 1), 1), ((9, 7, 3), 1), ((64, 64, 1), 1), ((61, 130, 2), 2),
                                             ((400, 300, 1), 1)])
def test_cuda_is_the_reference(shape, channels, noise):
    """Law: twice what torch loses against float64, and two roundings more. The bits are those of the two ops."""
    a = ridge_steps(4, 2, shape, channels, (2, shape[2]), 4 * shape[2] // channels) | {"noise": noise, "backend": "cuda"}
    here = {k: v.cuda() if isinstance(v, torch.Tensor) else v for k, v in a.items()}
    here["filters"] = [f.cuda() for f in a["filters"]]
    got = [v.cpu() for v in ridge_langevin(**here)]
    assert all(torch.equal(g, v.cpu()) for g, v in zip(got, composition(here), strict=True))
    exact, torchs = (ridge_langevin(**v | {"backend": "torch"}) for v in (in_double(a), a))
    for g, e, t in zip(got, exact, torchs, strict=True):
        assert (g - e).norm() <= 2 * (t - e).norm() + 2 * 2**-24 * e.norm()


def test_cpu_has_the_same_bits_alone_and_on_any_threads(isa, threads):
    a = ridge_steps(5, 5, (70, 33, 2), 1)
    threads(1)
    before, want = a["x"].clone(), ridge_langevin(**a)
    assert torch.equal(a["x"], before)
    for count in (2, 3, 4):
        threads(count)
        assert all(torch.equal(w, g) for w, g in zip(want, ridge_langevin(**a), strict=True))
        for n in range(5):
            alone = ridge_langevin(**a | {k: a[k][n:n + 1] for k in ("x", "b", "ids")})
            assert all(torch.equal(w[n], g[0]) for w, g in zip(want, alone, strict=True))


def test_a_broken_chain_stays_alone(isa):
    a = ridge_steps(4, 1, (12, 13, 1), 1)
    want = ridge_langevin(**a)
    a["x"][2, 3, 3] = torch.nan
    got = ridge_langevin(**a)
    for w, g in zip(want, got, strict=True):
        assert torch.equal(w[[0, 1, 3]], g[[0, 1, 3]]) and not g[2].isfinite().all()


def test_bad_arguments():
    a = ridge_steps(4, 2, (6, 5, 2), 2)
    bad = {"a": a["a"][:, :2], "weights": a["weights"][:2], "r": a["r"].double(), "q": a["q"][:2], "channels": 3,
           "step": 2**32 - 3, "xi": torch.zeros(3, 4, 6, 5, 1), "mu": torch.zeros(2), "filters": [], "count": 0}
    for name, value in bad.items():
        with pytest.raises(ArgumentError, match=f"^{name}:"):
            ridge_langevin(**a | {name: value})
