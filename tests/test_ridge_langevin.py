"""ridge_langevin: steps are the composition of ridge_grad and langevin_pixel, to the bit in the kernels."""

from __future__ import annotations

import pytest
import torch
from test_ridge_grad import constants

from alps_fast.errors import ArgumentError
from alps_fast.ops.langevin_pixel import langevin_pixel
from alps_fast.ops.philox_normal import AVERAGED, INDEPENDENT, NO_NOISE
from alps_fast.ops.ridge_grad import ridge_grad
from alps_fast.ops.ridge_langevin import ridge_langevin


@pytest.mark.parametrize("noise", [NO_NOISE, AVERAGED])
@pytest.mark.parametrize("channels, groups", [(1, 3), (2, 1)])
def test_ridge_langevin_is_the_composition(noise, channels, groups):
    filters, w, r, q, mu = constants(dtype=torch.float32)
    x, b = torch.randn(2, 9, 7, channels * groups), torch.randn(1, 9, 7, channels * groups)
    a, chains = torch.rand(1, 9, 7, 1), torch.tensor([0, 5])
    scalars = {"lam": 2.0, "lin": 1.5, "w": 1.0, "inv_eta2": 4.0, "noise_lam": 2.0, "noise": noise, "seed": 9}
    out, mean = ridge_langevin(x, b, a, chains, filters, w, r, q, mu, channels, step=4, count=3, **scalars)
    for k in range(3):
        images = x.movedim(-1, 1).reshape(-1, channels, 9, 7)
        grad = ridge_grad(images, filters, w, r, q, mu)[0].reshape(2, -1, 9, 7).movedim(1, -1).contiguous()
        x, m = langevin_pixel(x, grad, b, a, chains, step=4 + k, **scalars)
    torch.testing.assert_close(out, x, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(mean, m, rtol=1e-5, atol=1e-5)


def test_ridge_langevin_opcheck_given_noise_and_bad_arguments():
    filters, w, r, q, mu = constants(dtype=torch.float32)
    x, a, chains = torch.randn(2, 6, 6, 1), torch.ones(1, 6, 6, 1), torch.arange(2)
    args = (x, x.clone(), a, chains, filters, w, r, q, mu, 1, 2.0, 1.0, 1.0, 1.0, 2.0, AVERAGED, 0, 0, 2)
    torch.library.opcheck(ridge_langevin, args)
    still = ridge_langevin(*args[:-4], NO_NOISE, 0, 0, 2)[0]
    torch.testing.assert_close(ridge_langevin(*args, xi=torch.zeros(2, *x.shape))[0], still)
    with pytest.raises(ArgumentError, match="^count: "):
        ridge_langevin(*args[:-1], 0)
    with pytest.raises(ArgumentError, match="^xi: "):
        ridge_langevin(*args, xi=torch.zeros(1, *x.shape))
