"""Energies E(x, t): priors p_t(x) ∝ exp(−E(x, t)/t²) (docs/design.md §1)."""

from .base import Energy
from .coarse import CoarseFirst
from .compact import CompactNet
from .denoiser import DenoiserEnergy
from .diffusion import DiffusionPrior
from .gaussian import GaussianEnergy, GaussianMixtureEnergy
from .ridge import RidgeEnergy
from .store import load, load_teacher, names, save, save_teacher
from .sum import SumEnergy
from .symmetric import SymmetricDenoiser

__all__ = ["CoarseFirst", "CompactNet", "DenoiserEnergy", "DiffusionPrior", "Energy", "GaussianEnergy", "GaussianMixtureEnergy",
           "RidgeEnergy", "SumEnergy", "SymmetricDenoiser", "load", "load_teacher", "names", "save", "save_teacher"]
