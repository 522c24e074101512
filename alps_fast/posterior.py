"""`Posterior`: what a sampler returns, with its diagnostics, its file format and its picture."""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .errors import check, whole
from .io.files import check_is_file, reading, replacing, write_npz

if TYPE_CHECKING:
    from .samplers.schedule import Schedule

WANTED = "a file that Posterior.save wrote"
ARRAYS = ("mean", "channel_std", "samples", "count", "trace")


class BrokenChain(NamedTuple):
    """A chain that turned non-finite: left out of the statistics; its rows of `samples` and `trace` hold NaN."""

    measurement: int
    chain: int
    level: int
    step: int  # within the level; where one op takes several, the level's last


class Diagnostics(NamedTuple):
    """Figures on a run. R-hat and ESS are NaN below four draws.

    rhat, ess: (pixels,), or (B, pixels) for a batch, over the pixels of `Posterior.trace`. R-hat well above 1 says that
    chains disagree: modes whose weights froze while annealing, or too few draws.
    acceptance: mean probability at σ_min, None without a correction.
    by_level: one dictionary a level: t, eta, energy (mean E/t²), acceptance, tau (NaN without a correction).
    """

    rhat: np.ndarray
    ess: np.ndarray
    acceptance: float | None
    by_level: list[dict[str, float]]


@dataclass(frozen=True)
class Posterior:
    """The posterior of an image, as sampled. Shapes are given for one measurement; a batch puts B in front.

    mean: (C, H, W) real or complex, the MMSE estimate: the mean of the noise-free projections m(x). NaN where every chain
        of a batch's measurement broke.
    channel_std: (C', H, W) standard deviation of every real channel, unbiased variance over chains and draws; complex
        channel c is channels 2c (real part) and 2c + 1. NaN with a single draw.
    samples: (chains, C, H, W) the last draw of every chain.
    count: () draws in the statistics, chains × draws less those of broken chains.
    trace: (chains, draws, <= 256) numbers at fixed places of every draw, for diagnostics.
    gradients: evaluations of the energy's gradient a chain. seconds: of this call.
    chi2: () float64, ‖A x − y‖²/(η² n) averaged over the last draw of every chain, n real data: about 1 if noise_std,
        operator and prior are those of the data. NaN in files that do not have it.
    support: (H, W) bool, where the operator measures anything; None: everywhere. Elsewhere mean, std and samples are 0, no
        number is traced, and neither scales of pictures nor averages count what is there.
    """

    mean: Tensor
    channel_std: Tensor
    samples: Tensor
    count: Tensor
    trace: Tensor
    by_level: dict[str, list[float]]
    acceptance: float | None
    interrupted: bool
    broken: list[BrokenChain]
    seed: int
    schedule: Schedule
    seconds: float
    gradients: int
    chi2: Tensor = field(default_factory=lambda: torch.tensor(torch.nan, dtype=torch.float64))
    support: Tensor | None = None

    @property
    def std(self) -> Tensor:
        """(C, H, W) real; of a complex image the root of both parts' variances, √E|x − μ|²."""
        if not self.mean.is_complex():
            return self.channel_std
        return self.channel_std.unflatten(-3, (-1, 2)).square().sum(-3).sqrt()

    @property
    def mean_std(self) -> Tensor:
        """() the average of std over the support."""
        return self.std.mean() if self.support is None else self.std[..., self.support].mean()

    def interval(self, level: float = 0.9) -> tuple[Tensor, Tensor]:
        """Lower and upper end of the central interval of every pixel, mean ± q · std.

        q is Student's quantile with count − 1 degrees of freedom, for the std is itself estimated from so many draws
        (Cornish–Fisher expansion; within 1 % from 4 degrees of freedom on at level 0.9). For complex images the ends are
        complex: those of the real part and those of the imaginary part.

        Raises:
            ArgumentError: level is not in (0, 1).
        """
        check(0 < level < 1, "level", level, "a number in (0, 1)")
        z = NormalDist().inv_cdf(0.5 + level / 2)
        nu = (self.count - 1).double().clamp(min=1)
        q = z + (z**3 + z) / (4 * nu) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * nu**2) \
            + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * nu**3)
        half = self.channel_std * q.to(self.channel_std).view(*q.shape, 1, 1, 1)
        if self.mean.is_complex():
            half = torch.complex(*half.unflatten(-3, (-1, 2)).unbind(-3))
        return self.mean - half, self.mean + half

    def diagnostics(self) -> Diagnostics:
        """R-hat and effective sample size by ArviZ, and the run's figures by level.

        Raises:
            ImportError: ArviZ, an extra, is not installed.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its future, and of more chains than draws, which here is usual
            rhat, ess = self._rhat_and_ess()
        rows = [dict(zip(self.by_level, row, strict=True)) for row in zip(*self.by_level.values(), strict=True)]
        return Diagnostics(rhat, ess, self.acceptance, rows)

    def _rhat_and_ess(self) -> tuple[np.ndarray, np.ndarray]:
        try:
            import arviz
        except ImportError as error:
            raise ImportError('diagnostics() needs ArviZ: pip install "alps-fast[diagnostics]"') from error
        trace = self.trace.cpu().numpy().astype(np.float64)
        batch = trace[None] if trace.ndim == 3 else trace
        rhat = np.full((len(batch), batch.shape[-1]), np.nan)
        ess = rhat.copy()
        for i, one in enumerate(batch):
            one = one[np.isfinite(one).all((1, 2))]
            if one.shape[1] >= 4 and len(one):
                data = arviz.convert_to_dataset({"x": one})
                rhat[i], ess[i] = arviz.rhat(data)["x"].values, arviz.ess(data)["x"].values
        return (rhat[0], ess[0]) if trace.ndim == 3 else (rhat, ess)

    def save(self, path: str | Path) -> None:
        """Write arrays and figures to one .npz file, without pickles; whole or, where the disk is full, not at all."""
        arrays = {name: getattr(self, name).cpu().numpy() for name in ARRAYS}
        arrays["chi2"] = self.chi2.cpu().numpy()
        if self.support is not None:
            arrays["support"] = self.support.cpu().numpy()
        facts = {"by_level": self.by_level, "acceptance": self.acceptance, "interrupted": self.interrupted,
                 "broken": [lost._asdict() for lost in self.broken], "seed": self.seed, "schedule": asdict(self.schedule),
                 "seconds": self.seconds, "gradients": self.gradients}
        write_npz(Path(path), arrays | {"facts": np.array(json.dumps(facts))})

    @classmethod
    def load(cls, path: str | Path) -> Posterior:
        """Read what `save` wrote.

        Raises:
            ArgumentError: path is not such a file.
        """
        from .samplers.schedule import Schedule

        check_is_file(Path(path), "path")
        with reading(path, "path", WANTED), open(path, "rb") as file:  # by NumPy's own hand a broken archive stays open
            stored = np.load(file, allow_pickle=False)
            arrays: dict[str, Any] = {name: torch.from_numpy(stored[name]) for name in ARRAYS}
            if "chi2" in stored.files:
                arrays["chi2"] = torch.from_numpy(stored["chi2"])
            arrays["support"] = torch.from_numpy(stored["support"]) if "support" in stored.files else None
            facts = json.loads(str(stored["facts"]))
            facts["broken"] = [BrokenChain(**lost) for lost in facts["broken"]]
            facts["schedule"] = Schedule(**facts["schedule"])
            loaded = cls(**arrays, **facts)
            loaded._check(path)
        return loaded

    def _check(self, path: str | Path) -> None:
        """What was read must fit together, so that nothing that is asked of it later fails."""
        batched = int(self.mean.ndim == 4)
        axes = {"mean": 3, "channel_std": 3, "samples": 4, "count": 0, "trace": 3}
        for name, count in axes.items():
            array = getattr(self, name)
            check(array.ndim == count + batched, "path", f"{path}, whose {name} has shape {tuple(array.shape)}", WANTED)
        parts = 2 if self.mean.is_complex() else 1
        *first, channels, height, width = self.mean.shape
        fits = (self.channel_std.shape == (*first, parts * channels, height, width)
                and self.samples.shape == (*first, len(self.trace[0] if batched else self.trace), channels, height, width)
                and self.samples.dtype == self.mean.dtype and self.count.shape == tuple(first) and self.count.dtype == torch.int64
                and (self.mean.is_complex() or self.mean.is_floating_point())
                and self.channel_std.is_floating_point() and self.trace.is_floating_point())
        fits &= self.chi2.shape == self.count.shape and self.chi2.is_floating_point()
        fits &= self.support is None or (self.support.shape == (height, width) and self.support.dtype == torch.bool)
        check(fits, "path", f"{path}, whose arrays do not fit together", WANTED)
        ok = (isinstance(self.by_level, dict) and all(isinstance(v, list) for v in self.by_level.values())
              and len({len(v) for v in self.by_level.values()}) <= 1 and isinstance(self.acceptance, float | None)
              and isinstance(self.interrupted, bool) and isinstance(self.seconds, float | int))
        check(ok, "path", f"{path}, whose figures do not fit together", WANTED)
        whole("seed", self.seed, 0, 1 << 63)
        whole("gradients", self.gradients, 0)

    def plot(self, path: str | Path, index: int = 0) -> None:
        """Write a picture of mean, standard deviation and two samples; of measurement `index` of a batch.

        Complex images are shown by their magnitude, one channel in grey, three as RGB of [−1, 1].
        """
        from matplotlib.figure import Figure

        batched = self.mean.ndim == 4
        mean, std, samples = ((v[index] if batched else v) for v in (self.mean, self.std, self.samples))
        whole = [s for s in samples if bool(torch.view_as_real(s).isfinite().all() if s.is_complex() else s.isfinite().all())]
        panels = {"mean": mean, "standard deviation": std} | {f"sample {i + 1}": s for i, s in enumerate(whole[:2])}
        figure = Figure(figsize=(3 * len(panels), 3.3), layout="constrained")
        low, high = None, None
        for axes, (title, image) in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels.items(), strict=True):
            shown = image.abs() if image.is_complex() else image
            axes.set_title(title)
            axes.set_axis_off()
            if title == "standard deviation":
                drawn = axes.imshow(shown.mean(0).cpu().numpy(), cmap="magma", vmin=0)
                figure.colorbar(drawn, ax=axes, shrink=0.8)
            elif len(shown) == 3:
                axes.imshow(((shown + 1) / 2).clamp(0, 1).movedim(0, -1).cpu().numpy())
            else:
                grey = shown.mean(0).cpu().numpy()
                if low is None:  # one scale for all: the mean's
                    inside = grey if self.support is None else grey[self.support.cpu().numpy()]
                    low, high = float(np.nanmin(inside)), float(np.nanmax(inside))
                axes.imshow(grey, cmap="gray", vmin=low, vmax=high)
        file = Path(path) if Path(path).suffix else Path(f"{path}.png")
        kinds = figure.canvas.get_supported_filetypes()
        check(file.suffix[1:].lower() in kinds, "path", path, "a name that ends in ." + ", .".join(sorted(kinds)))
        with replacing(file) as partial:
            figure.savefig(partial, dpi=150)
