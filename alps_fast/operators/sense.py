"""Cartesian MRI: coil maps, centred orthonormal FFT, sampling mask."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import check, check_choice, check_positive, whole
from ..layout import Placed, beside
from ..ops._alike import each, product
from ..ops._cg import PRECISELY, allowed, conjugate_gradients
from ..ops._modes import one_thread, ordinary
from ..ops._scalars import StepScalars
from ..ops.langevin_fourier import langevin_fourier
from ..ops.langevin_sense import langevin_sense
from ..ops.langevin_sense_cg import langevin_sense_cg, sense_solve
from ..ops.philox_normal import INDEPENDENT
from . import factor_cache
from ._asked import CHAINS, NoiseAsked
from .base import Operator, by_itself, check_binary, check_finite, check_image, check_values
from .solver import cheaper, costs

REFINED = 2  # iterations between looks where factors that are exact but for rounding precondition: each gains five digits
REFINEMENTS = 8  # at most, of a solution in single precision; two or three are needed
CENTRE_TOL = 1e-4  # error of what all steps are taken around, in standard deviations under a prior of std one
MAP_TOL = 1e-3  # of steps without noise, whose errors add up, where noise would soon make them forgotten
CHUNK = 1 << 22  # matrix elements factored at a time


def centred_fft(x: Tensor) -> Tensor:
    """Orthonormal FFT over the last two axes, pixel and frequency zero in the middle (n // 2)."""
    return torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(x, (-2, -1)), norm="ortho"), (-2, -1))


def centred_ifft(x: Tensor) -> Tensor:
    """Its inverse."""
    return torch.fft.fftshift(torch.fft.ifft2(torch.fft.ifftshift(x, (-2, -1)), norm="ortho"), (-2, -1))


class CartesianMRI(Operator):
    """y_c = mask · F(maps_c · x) + noise, F the centred orthonormal FFT; images (1, H, W) complex.

    Measurements are (coils, H, W) or (B, coils, H, W) complex; with maps=None (H, W), (1, H, W) or (B, 1, H, W). What
    they hold where the mask is 0 is not used, but must be finite.

    Where all maps are zero, as outside the body, nothing is measured and nothing is sampled: x is 0 there, and so is its standard
    deviation.

    P_t is exact: by FFT for one coil, by one eigendecomposition a line (formed and factored in double at the first use,
    then kept) where the mask varies along one axis only, whichever it is; by conjugate gradients for other masks. `costs` tells
    what either takes of one measurement, and repr which was chosen.

    Factors of large images are kept on disk too, at most 2 GiB of them, in $XDG_CACHE_HOME/alps_fast or ~/.cache/alps_fast;
    ALPS_FAST_CACHE=folder names another place, ALPS_FAST_CACHE=off none.

    Args:
        mask: (H, W) bool or zeros and ones, frequency zero in the middle. (H, 1) or (1, W) stand for a mask that does
            not vary along the other axis, and so does (n,) with `axis`. (M, H, W), (M, H, 1) or (M, 1, W): one a
            measurement; y is then a batch of M. Conjugate gradients solve all where these vary along both axes together.
        maps: (coils, H, W) complex coil sensitivities, or None for one coil of sensitivity one. (M, coils, H, W): those of each
            measurement.
        noise_std: η > 0, in units of y, in every real component; (M,) one a measurement.
        axis: for a mask (n,), the image axis along which it varies: 0 (H: whole rows are kept or not) or 1 (W: whole
            columns).
        tol: where conjugate gradients solve, error allowed of a step whose state is kept, in posterior standard deviations; of
            those on the way there three times as much (docs/exactness.md §12).
        max_iter: their iterations at most; 305 are needed at t = 90 η of a brain's slice of which eight coils saw 12 %.
        solver: "lines" or "cg" (conjugate gradients) of several coils. "auto": lines where the mask allows them, unless they take
            more than 4 GiB or more than twice the time of a measurement; which does not hang on the machine.
        cache: whether factors may be kept on disk.

    Raises:
        ArgumentError: naming the argument.
    """

    is_complex = True

    takes_rows = True

    def __init__(self, mask: Tensor, maps: Tensor | None = None, *, noise_std: float | Tensor, axis: int | None = None,
                 tol: float = 0.01, max_iter: int = 1000, solver: str = "auto", cache: bool = True):
        super().__init__(noise_std)
        tol, max_iter = check_positive("tol", tol), whole("max_iter", max_iter, 1)
        mask = check_binary("mask", mask)
        check(mask.ndim in (1, 2, 3), "mask", f"shape {tuple(mask.shape)}", "(H, W), (M, H, W), or (n,) with axis")
        check(axis in ((0, 1) if mask.ndim == 1 else (None,)), "axis", axis,
              "0 or 1 with a mask (n,)" if mask.ndim == 1 else "None with a mask of two axes")
        if mask.ndim == 1:
            mask = mask[:, None] if axis == 0 else mask[None]
        check(bool((mask != 0).flatten(-2).any(-1).all()), "mask", "one that is all zero", "at least one observed sample in each")
        if maps is not None:
            check_values("maps", maps, is_complex=True)
            check(maps.ndim in (3, 4) and maps.numel() > 0, "maps", f"shape {tuple(maps.shape)}",
                  "(coils, H, W) or (M, coils, H, W)")
            check_finite("maps", maps)
            self._check_size("maps", maps, mask)
            check(bool((maps != 0).flatten(-3).any(-1).all()), "maps", "all zero", "maps that are not")
            maps = maps.detach().resolve_conj().contiguous().clone()
            mask = mask.expand(*mask.shape[:-2], *maps.shape[-2:])
        self.mask, self.maps = mask, maps
        masks = mask if mask.ndim == 3 else mask[None]
        of_each = None if maps is None else maps if maps.ndim == 4 else maps[None]
        self._agree(mask=masks, maps=of_each)
        seen = None if of_each is None else (of_each != 0).any(1)[..., None]
        self._support = None if seen is None or bool(seen.all()) else Placed(seen.float())
        self._placed_mask, self._placed_maps = Placed(masks), Placed() if of_each is None else Placed(of_each)
        self.tol, self.max_iter = tol, max_iter
        check_choice("solver", solver, ("auto",) if maps is None else ("auto", "lines", "cg"))
        line_axis = None if maps is None else _line_axis(masks)
        check(solver != "lines" or line_axis is not None, "solver", "'lines' with a mask that varies along both axes",
              "'cg' or 'auto'")
        self.costs = {} if of_each is None else costs(of_each.shape[1], of_each.shape[2], of_each.shape[3], line_axis)
        self.solver = "fft" if maps is None else cheaper(self.costs) if solver == "auto" else solver
        self.line_axis = line_axis if self.solver == "lines" else None
        self._cache = cache
        self._factors: dict[tuple[torch.dtype, torch.device], tuple[Tensor, Tensor]] = {}
        self._asked = NoiseAsked()
        self._rolled: dict[tuple[torch.dtype, torch.device], Tensor] = {}
        self._white: dict[tuple[torch.dtype, torch.device], Tensor] = {}

    def __repr__(self) -> str:
        many = "" if self.measurements is None else f"{self.measurements} measurements, "
        coils = "one coil" if self.maps is None else f"{self.maps.shape[-3]} coils"
        told = "; ".join(f"{name}: {cost}" for name, cost in self.costs.items() if len(self.costs) > 1)
        return (f"CartesianMRI({many}{' x '.join(map(str, self.mask.shape[-2:]))}, {coils}, "
                f"{100 * float(self.mask.mean()):.3g} % measured, noise_std={self.noise_std:g}, "
                f"solver={self.solver!r}{f' ({told})' if told else ''})")

    @property
    def iterative(self) -> bool:
        """With several coils and a mask of two axes."""
        return self.maps is not None and self.line_axis is None

    def kept(self) -> int:
        """The factors of all lines, in single precision."""
        return self._count * self.costs["lines"].bytes if self.line_axis is not None else 0

    def forward(self, x: Tensor) -> Tensor:
        """mask · F(maps · x), (coils, H, W) or (B, coils, H, W)."""
        self._check_image(x)
        self._counted("x", x, x.ndim == 4)
        coils = x if self.maps is None else product(x, self._maps(x, x))
        return _by_image(centred_fft, coils) * self._masks(x, coils)

    def adjoint(self, y: Tensor) -> Tensor:
        """Σ_c conj(maps_c) F⁻¹(mask · y_c), (1, H, W) or (B, 1, H, W)."""
        check_values("y", y, is_complex=True)
        self._check_measured(y)
        self._counted("y", y, y.ndim == 4)
        image = _by_image(centred_ifft, y * self._masks(y, y))
        if self.maps is not None:
            return product(image, self._maps(y, y).conj()).sum(-3, keepdim=True)
        return image if y.ndim > 2 else image[None]

    def normal(self, x: Tensor) -> Tensor:
        """AᴴA x: no shifts, and no transform along an axis that the mask does not vary along."""
        self._check_image(x)
        axes = (-2, -1) if self.line_axis is None else (self.line_axis - 2,)
        self._counted("x", x, x.ndim == 4)
        mask = self._rolled_mask(x)
        coils = x if self.maps is None else product(x, self._maps(x, x))
        if mask.ndim == 2:
            coils = _by_image(lambda v: torch.fft.ifftn(torch.fft.fftn(v, dim=axes) * mask, dim=axes), coils)
        else:
            coils = _by_image(lambda v: torch.fft.fftn(v, dim=axes), coils) * beside(mask, x)[:, None]
            coils = _by_image(lambda v: torch.fft.ifftn(v, dim=axes), coils)
        return coils if self.maps is None else product(coils, self._maps(x, x).conj()).sum(-3, keepdim=True)

    def check_measurement(self, y: Tensor) -> Tensor:
        """y as (B, coils, H, W)."""
        check_values("y", y, is_complex=True)
        self._check_measured(y)
        self._counted("y", y, y.ndim == 4, exact=True)
        check_finite("y", y)
        y = y * self._masks(y, y)  # so that no misfit counts what was not measured
        return self.whitened(y.reshape(-1, 1 if self.maps is None else self.maps.shape[-3], *y.shape[-2:]))

    def support(self, x: Tensor) -> Tensor | None:
        """Where Σ_c |maps_c|² > 0; None where that is everywhere."""
        return None if self._support is None else self._mine(self._support.like(x)[0])

    def data_count(self, y: Tensor) -> int:
        """Two for every sample of every coil where the mask is 1."""
        return 2 * y.shape[1] * int(self._mine(self._placed_mask.tensors[0])[0].expand(y.shape[-2:]).sum())

    def image_shape(self, y: Tensor) -> tuple[int, int, int]:
        """(1, H, W)."""
        return 1, y.shape[-2], y.shape[-1]

    def solve_state(self, rhs: Tensor, inv_eta2: float, lam: float) -> Tensor:
        """(AᴴA inv_eta2 + lam)⁻¹ rhs, exact or, where conjugate gradients solve, to the rounding of the dtype."""
        if not self.iterative:
            return super().solve_state(rhs, inv_eta2, lam)
        if rhs.dtype == torch.float32:
            return self._solved(rhs, inv_eta2, lam, torch.finfo(torch.float32).tiny)
        rows, solved = len(rhs) // (self.measurements or 1), []
        for k in range(self.measurements or 1):
            here, part = self.of(k, k + 1), rhs[k * rows:(k + 1) * rows]
            maps, mask = here._white_maps(rhs), here._rolled_mask(rhs)
            shift = part.new_full((len(part),), lam)
            maps, mask = maps.view(maps.shape[-3:]), mask.view(mask.shape[-2:])
            solved.append(sense_solve(part, torch.zeros_like(part), maps, mask, inv_eta2, shift, 0.0, PRECISELY * self.max_iter))
        return torch.cat(solved)

    def _solved(self, rhs: Tensor, inv_eta2: float, lam: float, tol: float) -> Tensor:
        """(AᴴA inv_eta2 + lam)⁻¹ rhs by conjugate gradients from rhs, or zero if that is nearer."""
        s, rhs = by_itself(inv_eta2, lam), rhs.contiguous()
        ids = torch.zeros(len(rhs), dtype=torch.int64, device=rhs.device)
        nothing = torch.zeros_like(rhs[:self.measurements or 1])
        return langevin_sense_cg(rhs, rhs, nothing, *self._of_each(rhs), ids, **vars(s), tol=tol,
                                 max_iter=PRECISELY * self.max_iter)[0]

    def centre(self, y: Tensor, inv_eta2: float, lam: float) -> Tensor:
        """As every operator's. By lines the factors in single precision precondition it, so that none in double are kept; by
        conjugate gradients what is left of it, formed in double, is solved for in single precision until nothing changes."""
        if self.maps is None:
            return super().centre(y, inv_eta2, lam)
        b = self.adjoint_state(y.to(torch.complex128)) * inv_eta2
        error, most = CENTRE_TOL * math.sqrt(b[0].numel()), PRECISELY * self.max_iter

        def apply(p: Tensor) -> Tensor:
            return self.normal_state(p) * inv_eta2 + p * lam

        if self.line_axis is None:
            found, done = torch.zeros_like(b), b.new_zeros(len(b), 1, 1, 1, dtype=torch.bool)
            for _ in range(REFINEMENTS):
                left = b - apply(found)
                more = self._solved(left.float(), inv_eta2, lam, CENTRE_TOL).double()
                found += torch.where(done, 0, more)  # each of its own measurement alone, however many there are
                done = done | ((more * left).sum((1, 2, 3), keepdim=True) <= error**2)  # what it changed, in squared deviations
                if bool(done.all()):
                    break
            return found.float()

        def precondition(r: Tensor) -> Tensor:
            return self._solved_by_step(r.float(), inv_eta2, lam, "auto").double()

        return conjugate_gradients(apply, b, torch.zeros_like(b), error, most, precondition, REFINED).float()

    def langevin(self, x: Tensor, grad: Tensor, b: Tensor, ids: Tensor, s: StepScalars, *, xi: Tensor | None = None,
                 backend: str = "auto") -> tuple[Tensor, Tensor]:
        """`ops.langevin_fourier` for one coil, `langevin_sense` or `langevin_sense_cg` for more; xi as they count it."""
        x, grad, b = x.contiguous(), grad.contiguous(), b.contiguous()
        if self.maps is None:
            h = self._rolled_mask(x)
            h = h.expand(*h.shape[:-2], *x.shape[1:3]).to(x.dtype.to_complex())
            if self._roots is not None:
                h = h * self._mine(self._roots.like(x)[0]).view(-1, 1, 1)
            return langevin_fourier(x, grad, b, h, 1, True, ids, **vars(s), xi=xi, backend=backend)
        if self.line_axis is not None:
            u, eigenvalues = self.factors(x.dtype.to_complex(), x.device)
            return langevin_sense(x, grad, b, u, eigenvalues, self.line_axis, ids, **vars(s), xi=xi, backend=backend)
        maps, mask = self._of_each(x)
        tol, max_iter = (self.tol, self.max_iter) if s.noise else (min(self.tol, MAP_TOL), PRECISELY * self.max_iter)
        after, mean = langevin_sense_cg(x, grad, b, maps, mask, ids, **vars(s), tol=tol, max_iter=max_iter, xi=xi,
                                        backend=backend)
        if s.noise and xi is None:
            few = slice(min(CHAINS, len(x) // (self.measurements or 1)))
            self._asked(self.of(0, 1), after[few], mean[few], ids[few], s)
        return after, mean

    def advance(self, x: Tensor, grad: Tensor, b: Tensor, ids: Tensor, s: StepScalars, *, backend: str = "auto") -> Tensor:
        """x⁺; by conjugate gradients from one system, or without noise to an error that suits a small correction."""
        if not self.iterative:
            return super().advance(x, grad, b, ids, s, backend=backend)
        # a row is not looked at: INDEPENDENT alone may have the noise_lam of the next level in it
        joint = s.noise_lam == s.lam if s.level is None else s.noise != INDEPENDENT
        x, grad, b = x.contiguous(), grad.contiguous(), b.contiguous()
        return langevin_sense_cg(x, grad, b, *self._of_each(x), ids, **vars(s), tol=allowed(self.tol, s.noise),
                                 max_iter=self.max_iter, joint=joint, backend=backend)[0]

    def _of_each(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Maps and mask as `langevin_sense_cg` takes them, of as many measurements both."""
        maps, mask = self._white_maps(x), self._rolled_mask(x)
        if self.measurements is None:
            return maps, mask
        count = max(len(maps), len(mask))
        return maps.expand(count, *maps.shape[-3:]), mask.expand(count, *mask.shape[-2:])

    def factors(self, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
        """(U (lines, n, n) complex `dtype`, Λ (lines, n) real) with AᴴA = U Λ Uᴴ on every line along `line_axis`; M in front of
        both where measurements differ.

            a line:  AᴴA = (Σ_c S̄_c S_cᵀ) ∘ G,   G = Fᴴ diag(mask) F
        """
        key = dtype, device
        if key not in self._factors:
            assert self.maps is not None
            made = [self._factored(k, dtype, device) for k in range(self._count)]
            self._factors[key] = made[0]
            if self.measurements is not None:
                self._factors[key] = torch.stack([u for u, _ in made]), torch.stack([values for _, values in made])
        u, eigenvalues = self._factors[key]
        return (u, eigenvalues) if self.measurements is None else (self._mine(u), self._mine(eigenvalues))

    def _factored(self, k: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
        """Those of measurement k of all."""
        masks, maps = self._placed_mask.tensors[0], self._placed_maps.tensors[0]
        mask, maps = masks[k % len(masks)], maps[k % len(maps)]
        assert self.line_axis is not None
        mask = mask[:, 0] if self.line_axis == 0 else mask[0]
        root = 1.0 if self._roots is None else float(self._roots.tensors[0].expand(max(k + 1, len(self._roots.tensors[0])))[k])
        name, found = None, None
        if self._cache and maps[0].numel() * len(mask) ** 2 >= factor_cache.WORTH:
            name = factor_cache.name_of(mask, maps, self.line_axis, root, dtype, device)
            found = factor_cache.load(name, device)
        if found is None:
            axes = (2, 1, 0) if self.line_axis == 0 else (1, 2, 0)
            found = _factors_of(mask, maps.to(device, torch.complex128).permute(axes), root, dtype)
            if name is not None:
                factor_cache.store(name, *found)
        return found

    def _maps(self, x: Tensor, rows: Tensor) -> Tensor:
        """The coil maps in the precision of x, on its device, beside rows (N, ...) or one (..., H, W)."""
        maps = self._mine(self._placed_maps.like(x)[0])
        return maps[0] if self.measurements is None else beside(maps, rows)

    def _white_maps(self, x: Tensor) -> Tensor:
        """Those of W^{1/2} A, (coils, H, W), or (1|M, coils, H, W) where measurements differ."""
        key = x.dtype, x.device
        if key not in self._white:
            with torch.inference_mode(False):  # they outlive the mode that they are first asked for in
                maps = self._placed_maps.like(x)[0]
                self._white[key] = maps if self._roots is None else maps * self._roots.like(x)[0].view(-1, 1, 1, 1)
        maps = self._mine(self._white[key])
        return maps[0] if self.measurements is None else maps

    def _masks(self, x: Tensor, rows: Tensor) -> Tensor:
        """The mask likewise, frequency zero in the middle."""
        masks = self._mine(self._placed_mask.like(x)[0])
        return masks[0] if self.measurements is None else beside(masks, rows)[:, None]

    def _rolled_mask(self, x: Tensor) -> Tensor:
        """The mask in torch.fft order, real dtype of x: centred transforms cancel in AᴴA but for this roll; (H, W), or
        (1|M, H, W) where measurements differ."""
        key = x.real.dtype, x.device
        if key not in self._rolled:
            with torch.inference_mode(False):  # it outlives the mode it is first asked for in
                masks = self._placed_mask.tensors[0]
                self._rolled[key] = ordinary(torch.fft.ifftshift(masks, (-2, -1)).to(x.device, x.real.dtype))
        masks = self._mine(self._rolled[key])
        return masks[0] if self.measurements is None else masks

    def _check_image(self, x: Tensor) -> None:
        check_image(x, True)
        check(x.shape[-3] == 1, "x", f"shape {tuple(x.shape)}", "(1, H, W) or (B, 1, H, W)")
        self._check_size("x", x, self.mask)

    def _check_measured(self, y: Tensor) -> None:
        if self.maps is None:
            ok, wanted = y.ndim == 2 or (y.ndim in (3, 4) and y.shape[-3] == 1), "(H, W), (1, H, W) or (B, 1, H, W)"
        else:
            coils = tuple(self.maps.shape[-3:])
            ok, wanted = y.ndim in (3, 4) and tuple(y.shape[-3:]) == coils, f"{coils} or (B, *{coils}), to fit the maps"
        check(ok and y.numel() > 0, "y", f"shape {tuple(y.shape)}", wanted)
        self._check_size("y", y, self.mask)

    @staticmethod
    def _check_size(name: str, value: Tensor, mask: Tensor) -> None:
        ok = all(m in (1, n) for m, n in zip(mask.shape[-2:], value.shape[-2:], strict=True))
        check(ok, name, f"shape {tuple(value.shape)}", f"a height and width that fit the mask {tuple(mask.shape)}")


def _factors_of(mask: Tensor, lines: Tensor, root: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(U, Λ) of W^{1/2} A, W^{1/2} = root, of a mask (n,) and of maps (lines, n, coils) in double."""
    n = len(mask)
    kernel = torch.fft.ifft(torch.fft.ifftshift(mask).double())  # G is circulant: G[j, k] = kernel[j − k]
    along = torch.arange(n, device=kernel.device)
    gram = kernel[(along[:, None] - along) % n].to(lines.device)
    u = torch.empty(len(lines), n, n, dtype=dtype, device=lines.device)
    eigenvalues = torch.empty(len(lines), n, dtype=u.real.dtype, device=lines.device)
    step = max(1, CHUNK // n**2)
    for first in range(0, len(lines), step):
        s = lines[first:first + step]
        with one_thread():  # where eigenvalues agree any basis serves, and which one LAPACK finds hangs on its threads
            values, vectors = torch.linalg.eigh((s.conj() @ s.mT) * gram)
        u[first:first + step], eigenvalues[first:first + step] = vectors, (values * root**2).clamp_min(0)
    return u, eigenvalues


def _by_image(transform: Callable[[Tensor], Tensor], coils: Tensor) -> Tensor:
    """`transform` of the coils of an image (coils, H, W), or of each of a batch."""
    return each(transform, coils) if coils.ndim == 4 else transform(coils)


def _line_axis(masks: Tensor) -> int | None:
    """The only axis along which masks (M, H, W) vary, the shorter one if they vary along none, None if along both."""
    constant_along_h, constant_along_w = bool((masks == masks[:, :1]).all()), bool((masks == masks[..., :1]).all())
    if constant_along_h and constant_along_w:
        return 0 if masks.shape[1] <= masks.shape[2] else 1
    return 1 if constant_along_h else 0 if constant_along_w else None
