"""`Posterior`: what a sampler returns, with its diagnostics, its file format and its picture."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .errors import check, check_choice, check_positive, number, whole
from .io.archives import read_arrays, write_arrays
from .io.files import check_is_file, reading, replacing
from .pairs import Units, units
from .schedule import Schedule
from .student import student

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WANTED = "a file that Posterior.save wrote"
ARRAYS = ("mean", "channel_std", "samples", "count", "trace", "chain_means")
POLAR = ("polar_means", "polar_std")  # of complex images alone
DERIVED = ("magnitude_mean", "magnitude_std", "phase_mean", "phase_std")
OF = ("value", "magnitude", "phase")


class BrokenChain(NamedTuple):
    """A chain that turned non-finite, or ran away under a network to a thousand times what prior and measurement know.

    It is left out of the statistics; its rows of `samples` and `trace` hold NaN from there on.
    """

    measurement: int
    chain: int
    level: int
    step: int  # within the level; where one op takes several, and of a runaway, the level's last


class Diagnostics(NamedTuple):
    """Figures on a run. R-hat and ESS are NaN below four draws.

    rhat, ess: (pixels,), or (B, pixels) for a batch, over the pixels of `Posterior.trace`. R-hat well above 1 says that
    chains disagree: modes whose weights froze while annealing, or too few draws. Both take chains for independent: of pairs
    R-hat is a little higher, and the mean is better than the effective sample size says.
    acceptance: mean probability at σ_min, None without a correction.
    by_level: one dictionary a level: t, eta, energy (mean E/t²), acceptance, tau (NaN without a correction);
        where steps are solved by iteration also applications, of AᴴA a step and chain (NaN in a CUDA graph).
    """

    rhat: np.ndarray
    ess: np.ndarray
    acceptance: float | None
    by_level: list[dict[str, float]]


class Figures(NamedTuple):
    """Of every pixel: mean, variance, and the parts of it that are in how chains' means differ, of `pairs.units`.

    between: the variance of units' means. apart: how the two of a pair differ, 0 without pairs.
    """

    mean: Tensor
    variance: Tensor
    between: Tensor
    apart: Tensor


@dataclass(frozen=True, repr=False)
class Posterior:
    """The posterior of an image, as sampled. Shapes are given for one measurement; a batch puts B in front.

    mean: (C, H, W) real or complex, the MMSE estimate: the mean of the noise-free projections m(x). NaN where every chain
        of a batch's measurement broke.
    channel_std: (C', H, W) standard deviation of every real channel; complex channel c is channels 2c (real part) and
        2c + 1. Its square is (m − 1)/m W + B/m over m draws a chain, W the mean variance within chains and B/m the variance
        of chains' means: draws of one chain may be near each other, chains (or pairs of them) are independent. NaN with a single
        chain or pair.
    samples: (chains, C, H, W) the last draw of every chain.
    count: () draws in the statistics, chains × draws less those of broken chains.
    trace: (chains, draws, <= 256) numbers at fixed places of every draw, for diagnostics.
    chain_means: (chains, C, H, W) the mean of the draws of every chain, NaN for broken ones.
    polar_means, polar_std: of complex images, else None: the same of magnitudes (C), cosines (C) and sines (C) of phases,
        (chains, 3C, H, W) and (3C, H, W); see `magnitude_std` and `phase_std`.
    gradients: evaluations of the energy's gradient a chain. seconds: of this call.
    chi2: () float64, ‖A x − y‖²/(η² n) averaged over the last draw of every chain, n real data: about 1 if noise_std,
        operator and prior are those of the data. NaN in files that do not have it.
    support: (H, W) bool, where the operator measures anything; None: everywhere. Elsewhere mean, std and samples are 0, no
        number is traced, and neither scales of pictures nor averages count what is there.
    pairs: whether chains 2k and 2k + 1 have opposite noise. first_chain: index of the first.
    leap_acceptance: with moves="leap", the mean probability of acceptance of a leap to another mode, NaN where no two modes were
        found to leap between; else None. Next to 0: the weights of modes are still those that annealing froze.
    """

    mean: Tensor
    channel_std: Tensor
    samples: Tensor
    count: Tensor
    trace: Tensor
    chain_means: Tensor
    polar_means: Tensor | None
    polar_std: Tensor | None
    by_level: dict[str, list[float]]
    acceptance: float | None
    interrupted: bool
    broken: list[BrokenChain]
    seed: int
    schedule: Schedule
    seconds: float
    gradients: int
    chi2: Tensor = field(default_factory=lambda: torch.tensor(torch.nan, dtype=torch.float64, device="cpu"))
    support: Tensor | None = None
    pairs: bool = False
    first_chain: int = 0
    leap_acceptance: float | None = None

    @property
    def std(self) -> Tensor:
        """(C, H, W); of complex images that of both parts, √E|x − μ|². NaN, with a warning, of one chain or one pair."""
        self._warn_of_one("std")
        return self._figures("value").variance.sqrt()

    @property
    def mean_std(self) -> Tensor:
        """() the average of std over the support."""
        return self.std.mean() if self.support is None else self.std[..., self.support].mean()

    @property
    def magnitude_mean(self) -> Tensor:
        """(C, H, W) E|x| of a complex image, which exceeds |E x| by what the phase is uncertain. ArgumentError of a real one."""
        return self._figures("magnitude").mean

    @property
    def magnitude_std(self) -> Tensor:
        """(C, H, W) standard deviation of |x| of a complex image, which pictures of magnitudes go with. NaN of one chain."""
        self._warn_of_one("magnitude_std")
        return self._figures("magnitude").variance.sqrt()

    @property
    def phase_mean(self) -> Tensor:
        """(C, H, W) mean direction arg E exp(i arg x) of a complex image, radians in (−π, π]."""
        return self._figures("phase").mean

    @property
    def phase_std(self) -> Tensor:
        """(C, H, W) circular standard deviation √(−2 ln R), R = |E exp(i arg x)|, of a complex image, radians.

        At most √ln(draws), which is what draws say of a phase that is uniform. NaN of one chain.

        Source: Mardia & Jupp, "Directional Statistics", 2000, §2.3.
        """
        self._warn_of_one("phase_std")
        return self._phase_std()

    def interval(self, level: float = 0.9, of: str = "value") -> tuple[Tensor, Tensor]:
        """Lower and upper end of the central interval of every pixel, mean ± q √(std² + B/(m K)).

        B/m, the variance of the means of K independent chains, or pairs of chains, over K is that of the mean; 0 where pairs
        cancel, as under a Gaussian posterior. q is Student's quantile, as the std is itself estimated: with chains − 1 degrees of
        freedom from independent chains that hardly moved between draws, from such pairs with as many as there are where they
        cancel and up to chains − 1 where they do not, and more where chains have mixed. Measured with two independent chains or
        two pairs and more, moved by 0 to 20 times their correlation: 90 % intervals cover 89 to 92 % (95 % with three chains, of
        which one is without its other). Ask for four chains or more: two, independent, make q up to 6.3 at level 0.9.

        Args:
            level: how probably the truth lies between the ends, at each pixel.
            of: "value"; of complex images the ends are then complex: those of the real part and those of the imaginary part.
                Or, of complex images, "magnitude", from 0 on, or "phase", in radians about `phase_mean`, at most π to each side.

        Returns:
            Two tensors (C, H, W); NaN, and a warning, of one chain, which does not say how far chains differ, or one pair.

        Raises:
            ArgumentError: naming the argument.
        """
        level = number(level)
        check(isinstance(level, Real) and 0 < level < 1, "level", level, "a number in (0, 1)")
        self._warn_of_one("interval")
        figures = self._figures(of, by_channel=True)
        _, independent = self._counts()
        q = student(level, self._freedom(figures))
        spread = self._phase_std() if of == "phase" else figures.variance.sqrt()
        half = spread * q * (1 + (figures.between / figures.variance).nan_to_num(1.0) / independent).sqrt()
        half = torch.where(independent > 1, half, torch.nan).to(spread.dtype)
        if of == "phase":
            half = half.clamp(max=torch.pi)
        if of == "value" and self.mean.is_complex():
            half = torch.complex(*half.unflatten(-3, (-1, 2)).unbind(-3))
        low, high = figures.mean - half, figures.mean + half
        return (low.clamp(min=0) if of == "magnitude" else low), high

    def _figures(self, of: str, by_channel: bool = False) -> Figures:
        """Those of what is asked for; of the value, its variances those of real channels if `by_channel`."""
        check_choice("of", of, ("value",) if self.polar_means is None or self.polar_std is None else OF)
        if of == "value" or self.polar_means is None or self.polar_std is None:
            means = self.chain_means
            if means.is_complex():
                means = torch.view_as_real(means).movedim(-1, -3).flatten(-4, -3)
            parts = self.channel_std.square(), *self._over_units(means)
            if self.mean.is_complex() and not by_channel:
                parts = tuple(v.unflatten(-3, (-1, 2)).sum(-3) for v in parts)
            return Figures(self.mean, *parts)
        kinds = slice(0, 1) if of == "magnitude" else slice(1, 3)
        means, variances = (v.unflatten(-3, (3, -1))[..., kinds, :, :, :] for v in (self.polar_means, self.polar_std.square()))
        mean = means.double().nanmean(-5).to(means.dtype)
        mean = mean[..., 0, :, :, :] if of == "magnitude" else torch.atan2(*mean.unbind(-4)[::-1])
        return Figures(mean, *(v.sum(-4) for v in (variances, *self._over_units(means))))

    def _phase_std(self) -> Tensor:
        """√(−2 ln R): of n draws R² is 1/n and more even where a phase is uniform."""
        least = 1 / self.count.clamp(min=1).view(*self.count.shape, 1, 1, 1)
        return (1 - self._figures("phase").variance).clamp(max=1).maximum(least).log().neg().sqrt()

    def _freedom(self, figures: Figures) -> Tensor:
        """Degrees of freedom of variances, (C, H, W) whole numbers: those of chains' means, k, more where chains have mixed.

            k = ⌊(S + B)² / (S²/(P + 2) + B²/(K + 1)) − 2⌋ from K − 1 to chains − 1,   S = `apart`, B = `between`
            ν = ⌊variance² / ((S + B)²/k + within²/(K (n − 1)))⌋,                     variance = S + B + within

        of P pairs among K units; k is K − 1 without pairs, P where their means are all the same, and known by S² P/(P + 2) and
        B² (K − 1)/(K + 1), which are without bias. A chain is worth n independent draws, at least 1 and at most as many as it
        has: variance/(S + B) by half of all chances, the median of a χ² of k degrees of freedom being k (1 − 2/(9k))³.

        Sources: Satterthwaite, "An approximate distribution of estimates of variance components", 1946; Wilson & Hilferty, "The
        distribution of chi-square", 1931.
        """
        variance, between = figures.variance, figures.between + figures.apart
        chains, independent = (v.clamp(min=2) for v in self._counts())
        draws, pairs = self.count.view(chains.shape) / chains, chains - independent
        parts = figures.apart.square() / (pairs + 2) + figures.between.square() / (independent + 1)
        k = (between.square() / parts - 2 + 1e-6).floor().nan_to_num(1.0).maximum(independent - 1).minimum(chains - 1)
        n = (variance / between * (1 - 2 / (9 * k)) ** 3).clamp(min=1.0).minimum(draws)
        within = (variance - between).clamp(min=0)
        parts = between.square() / k + torch.where(within > 0, within.square() / (independent * (n - 1)), 0)
        return (variance.square() / parts).floor().nan_to_num(1.0).maximum(k)

    def _over_units(self, means: Tensor) -> tuple[Tensor, Tensor]:
        """`between` and `apart` of `Figures`, float64, of means (chains, …), NaN of broken ones; NaN where there is one unit."""
        found = self._units(means)
        count = found.whole.sum(1).view(-1, *[1] * (found.mean.ndim - 2))
        here = found.whole.view(*found.whole.shape, *[1] * (found.mean.ndim - 2))
        mean = found.mean.sum(1) / count
        squares = torch.where(here, found.mean - mean[:, None], 0).square().sum(1)
        between, apart = torch.where(count > 1, squares / (count - 1), torch.nan), found.apart.sum(1) / count
        return (between, apart) if self.count.ndim else (between[0], apart[0])

    def _units(self, means: Tensor) -> Units:
        """The pairs, or chains, that are whole, of means (chains, …); a batch's axis in front in any case."""
        means = means.double() if self.count.ndim else means.double()[None]
        return units(means, means.flatten(2).isfinite().all(-1), self.first_chain, self.pairs)

    def _counts(self) -> tuple[Tensor, Tensor]:
        """How many chains did not break, and how many units of them there are, both (1, 1, 1)."""
        means = torch.view_as_real(self.chain_means) if self.mean.is_complex() else self.chain_means
        chains = means.flatten(self.count.ndim + 1).isfinite().all(-1).sum(-1)
        shape = *self.count.shape, 1, 1, 1
        return chains.view(shape), self._units(means).whole.sum(1).view(shape)

    def _warn_of_one(self, name: str) -> None:
        chains, independent = self._counts()
        if bool((chains == 1).any()):
            warnings.warn(f"{name}: NaN, as one chain does not tell how far it is from others; ask for chains=4 or more",
                          stacklevel=3)
        elif bool((independent == 1).any()):
            warnings.warn(f"{name}: NaN, as one pair of chains does not tell how far it is from others; ask for chains=4 or "
                          "more, or for pairs=False", stacklevel=3)

    def scaled(self, scale: float) -> Posterior:
        """The posterior of `scale` times the image, scale > 0, else an ArgumentError: its units changed back, where they were
        changed for the prior."""
        scale = check_positive("scale", scale)
        whole = {name: scale * getattr(self, name) for name in ("mean", "channel_std", "samples", "trace", "chain_means")}
        if self.polar_means is None or self.polar_std is None:
            return replace(self, **whole)
        sizes = self.polar_means.new_tensor([scale, 1.0, 1.0]).repeat_interleave(self.mean.shape[-3]).view(-1, 1, 1)
        return replace(self, **whole, polar_means=sizes * self.polar_means, polar_std=sizes * self.polar_std)

    def part(self, index: int) -> Posterior:
        """That of measurement `index`, from 0 on, of a batch alone.

        Raises:
            ArgumentError: naming index.
        """
        check(self.mean.ndim == 4, "index", f"{index} of a posterior that is of one measurement", "a batch's")
        index = whole("index", index, 0, len(self.mean))
        names = [f.name for f in fields(self) if isinstance(getattr(self, f.name), Tensor) and f.name != "support"]
        lost = [BrokenChain(0, *of[1:]) for of in self.broken if of.measurement == index]
        return replace(self, **{name: getattr(self, name)[index] for name in names}, broken=lost)

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

    def save(self, path: str | Path, more: Mapping[str, np.ndarray] | None = None) -> None:
        """Write arrays and figures to one .npz file, without pickles, or .h5; whole or, on a full disk, not at all.

        Beside what `load` reads there are, for others: std and, of complex images, magnitude_mean, magnitude_std, phase_mean
        and phase_std. more: arrays by names of their own.

        Raises:
            ImportError: HDF5 is asked for and h5py, an extra, is not installed.
        """
        write_arrays(Path(path), self.arrays() | dict(more or {}))

    def arrays(self) -> dict[str, np.ndarray]:
        """What `save` writes, by name."""
        return self.derived() | self._stored()

    def derived(self) -> dict[str, np.ndarray]:
        """std and, of complex images, means and standard deviations of magnitude and phase; NaN of one chain alone."""
        names = ("std",) if self.polar_means is None else ("std", *DERIVED)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what one chain cannot tell
            return {name: getattr(self, name).cpu().numpy() for name in names}

    def _stored(self) -> dict[str, np.ndarray]:
        polar = () if self.polar_means is None else POLAR
        arrays = {name: getattr(self, name).cpu().numpy() for name in (*ARRAYS, *polar)}
        arrays["chi2"] = self.chi2.cpu().numpy()
        if self.support is not None:
            arrays["support"] = self.support.cpu().numpy()
        facts = {"by_level": self.by_level, "acceptance": self.acceptance, "interrupted": self.interrupted,
                 "broken": [lost._asdict() for lost in self.broken], "seed": self.seed, "schedule": asdict(self.schedule),
                 "seconds": self.seconds, "gradients": self.gradients, "pairs": self.pairs, "first_chain": self.first_chain,
                 "leap_acceptance": self.leap_acceptance}
        return arrays | {"facts": np.array(json.dumps(facts))}

    @classmethod
    def load(cls, path: str | Path) -> Posterior:
        """Read what `save` wrote.

        Raises:
            ArgumentError: path is not such a file.
        """
        check_is_file(Path(path), "path")
        with reading(path, "path", WANTED):
            stored = read_arrays(Path(path), "path", (*ARRAYS, *POLAR, "chi2", "support", "facts"))
            arrays: dict[str, Any] = {name: torch.from_numpy(stored[name]) for name in ARRAYS}
            arrays |= {name: torch.from_numpy(stored[name]) if name in stored else None for name in (*POLAR, "support")}
            if "chi2" in stored:
                arrays["chi2"] = torch.from_numpy(stored["chi2"])
            facts = json.loads(str(stored["facts"]))
            facts["broken"] = [BrokenChain(**lost) for lost in facts["broken"]]
            facts["schedule"] = Schedule(**facts["schedule"])
            loaded = cls(**arrays, **facts)
            loaded._check(path)
        return loaded

    def _check(self, path: str | Path) -> None:
        """What was read must fit together, so that nothing that is asked of it later fails."""
        batched = int(self.mean.ndim == 4)
        axes = {"mean": 3, "channel_std": 3, "samples": 4, "count": 0, "trace": 3, "chain_means": 4}
        for name, count in axes.items():
            array = getattr(self, name)
            check(array.ndim == count + batched, "path", f"{path}, whose {name} has shape {tuple(array.shape)}", WANTED)
        parts = 2 if self.mean.is_complex() else 1
        *first, channels, height, width = self.mean.shape
        polar_means, polar_std = self.polar_means, self.polar_std
        polar_fits = polar_means is None and polar_std is None and not self.mean.is_complex()
        if polar_means is not None and polar_std is not None:
            polar_fits = (self.mean.is_complex() and polar_std.shape == (*first, 3 * channels, height, width)
                          and polar_means.shape == (*self.samples.shape[:-3], 3 * channels, height, width)
                          and polar_means.is_floating_point() and polar_std.is_floating_point())
        fits = (polar_fits and self.chain_means.shape == self.samples.shape and self.chain_means.dtype == self.mean.dtype
                and self.channel_std.shape == (*first, parts * channels, height, width)
                and self.samples.shape == (*first, len(self.trace[0] if batched else self.trace), channels, height, width)
                and self.samples.dtype == self.mean.dtype and self.count.shape == tuple(first) and self.count.dtype == torch.int64
                and (self.mean.is_complex() or self.mean.is_floating_point())
                and self.channel_std.is_floating_point() and self.trace.is_floating_point())
        fits &= self.chi2.shape == self.count.shape and self.chi2.is_floating_point()
        fits &= self.support is None or (self.support.shape == (height, width) and self.support.dtype == torch.bool)
        check(fits, "path", f"{path}, whose arrays do not fit together", WANTED)
        ok = (isinstance(self.by_level, dict) and all(isinstance(v, list) for v in self.by_level.values())
              and len({len(v) for v in self.by_level.values()}) <= 1 and isinstance(self.acceptance, float | None)
              and isinstance(self.leap_acceptance, float | None)
              and isinstance(self.interrupted, bool) and isinstance(self.seconds, float | int))
        check(ok, "path", f"{path}, whose figures do not fit together", WANTED)
        whole("seed", self.seed, 0, 1 << 63)
        whole("gradients", self.gradients, 0)
        whole("first_chain", self.first_chain, 0, 1 << 32)
        check(isinstance(self.pairs, bool), "pairs", repr(self.pairs), "True or False")

    def __repr__(self) -> str:
        """What it is of, in four lines."""
        batch = f"{self.mean.shape[0]} measurements, " if self.mean.ndim == 4 else ""
        kind = "complex" if self.mean.is_complex() else "real"
        chains = self.samples.shape[-4]
        how = f"{chains} chains{' in pairs' if self.pairs else ''}, {int(self.count.sum())} draws in all"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            spread = float(self.mean_std)
        chi2 = ", ".join(f"{v:.3g}" for v in self.chi2.flatten().tolist()[:4]) + (", …" if self.chi2.numel() > 4 else "")
        faults = (", interrupted" if self.interrupted else "") + (f", {len(self.broken)} chains broken" if self.broken else "")
        return (f"Posterior of {batch}{kind} images {tuple(self.mean.shape[-3:])}: {how}{faults}\n"
                f"  standard deviation {spread:.3g} on average, chi2 a datum {chi2}\n"
                f"  {self.gradients} gradients a chain in {self.seconds:.3g} s, seed {self.seed}\n"
                "  mean, std, interval(), samples, diagnostics(), plot(), save()")

    def plot(self, path: str | Path | None = None, index: int = 0) -> Figure:
        """A picture of mean, standard deviation and two samples, of measurement `index` of a batch; written to `path` if given.

        Returns the Matplotlib figure, which a notebook shows.

        Complex images are shown by their magnitude, with its standard deviation; one channel in grey, three as RGB of [−1, 1].
        """
        from matplotlib.figure import Figure

        batched = self.mean.ndim == 4
        index = whole("index", index, 0, len(self.mean) if batched else 1)
        std = self.magnitude_std if self.mean.is_complex() else self.std
        mean, std, samples = ((v[index] if batched else v) for v in (self.mean, std, self.samples))
        unbroken = [s for s in samples if bool(torch.view_as_real(s).isfinite().all() if s.is_complex() else s.isfinite().all())]
        panels = {"mean": mean, "standard deviation": std} | {f"sample {i + 1}": s for i, s in enumerate(unbroken[:2])}
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
        if path is None:
            return figure
        file = Path(path) if Path(path).suffix else Path(f"{path}.png")
        kinds = figure.canvas.get_supported_filetypes()
        check(file.suffix[1:].lower() in kinds, "path", path, "a name that ends in ." + ", .".join(sorted(kinds)))
        with replacing(file) as partial:
            figure.savefig(partial, dpi=150)
        return figure
