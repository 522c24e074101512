"""SigPy's linear operators as ours, and ours as SigPy's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..errors import check, sides
from ..operators import LinearOperator, Operator

if TYPE_CHECKING:
    from sigpy.linop import Linop


def from_sigpy(linop: Linop, noise_std: float, *, is_complex: bool = True, tol: float = 0.01,
               max_iter: int = 1000) -> LinearOperator:
    """y = A x + noise for a SigPy `Linop` A, by its NumPy code: images go there and back one by one.

    Images are (C, H, W), of a Linop whose ishape is (C, H, W), or (H, W), then with C = 1; measurements have its oshape, as torch
    tensors: torch.from_numpy(y). Complex images, unless `is_complex` is False: then A must give, and its adjoint is taken to be,
    real images.

    Where A is a Cartesian `sigpy.mri.linop.Sense(maps, weights=mask)`, `CartesianMRI(mask, maps, noise_std=…)` is the same and
    samples by fused kernels; `LinearOperator` solves by conjugate gradients.

    Args:
        linop: any of `sigpy.linop`, composed or not. noise_std: η > 0, in every real component of y.
        tol, max_iter: of `LinearOperator`.

    Raises:
        ArgumentError: naming the argument.
    """
    shape = getattr(linop, "ishape", None)
    check(shape is not None and callable(getattr(linop, "apply", None)), "linop", type(linop).__name__, "a sigpy.linop.Linop")
    inside, measured = tuple(linop.ishape), tuple(linop.oshape)
    check(len(inside) in (2, 3), "linop", f"a {type(linop).__name__} of images {inside}", "one of images (H, W) or (C, H, W)")
    image = (1, *inside) if len(inside) == 2 else inside
    dtype = np.complex64 if is_complex else np.float32

    def forward(x: Tensor) -> Tensor:
        return applied(linop, x, inside, None, measured)

    def adjoint(y: Tensor) -> Tensor:
        return applied(linop.H, y, measured, dtype, image)

    return LinearOperator(forward, adjoint, noise_std, image, is_complex=is_complex, tol=tol, max_iter=max_iter)


def applied(linop: Linop, x: Tensor, inside: Sequence[int], dtype: type | None, shape: Sequence[int]) -> Tensor:
    """A of each of a batch, in single precision; real where `dtype` is."""
    rows = [np.asarray(linop(row.reshape(tuple(inside)))) for row in x.detach().cpu().resolve_conj().numpy()]
    values = np.stack(rows).reshape(len(rows), *shape)
    if dtype is not None and not np.issubdtype(dtype, np.complexfloating):
        values = values.real
    values = values.astype(dtype or (np.complex64 if np.iscomplexobj(values) else np.float32), copy=False)
    return torch.from_numpy(np.ascontiguousarray(values)).to(x.device)


def to_sigpy(operator: Operator, image_shape: Sequence[int]) -> Linop:
    """The Linop of one of our operators, for SigPy's own algorithms: images (C, H, W) and measurements as NumPy arrays.

    Args:
        operator: any. image_shape: (C, H, W).

    Raises:
        ArgumentError: naming the argument. ImportError: SigPy is not installed.
    """
    from sigpy.linop import Linop

    check(isinstance(operator, Operator), "operator", type(operator).__name__, "an alps_fast operator")
    shape = sides(image_shape)
    dtype = np.complex64 if operator.is_complex else np.float32
    nothing = torch.zeros(shape, dtype=torch.complex64 if operator.is_complex else None, device="cpu")
    measured = tuple(operator.forward(nothing).shape)

    class Of(Linop):
        """A, or its adjoint."""

        def __init__(self, back: bool):
            self.back = back
            super().__init__(shape if back else measured, measured if back else shape, f"{type(operator).__name__}")

        def _apply(self, input: Any) -> np.ndarray:
            x = torch.from_numpy(np.ascontiguousarray(input))
            if not self.back:
                return operator.forward(torch.from_numpy(np.asarray(input, dtype=dtype))).numpy()
            return operator.adjoint(x.to(torch.complex64 if x.is_complex() else torch.float32)).resolve_conj().numpy()

        def _adjoint_linop(self) -> Linop:
            return Of(not self.back)

    return Of(False)
