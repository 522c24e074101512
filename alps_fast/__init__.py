"""alps_fast: exact and fast posterior sampling of images by annealed Langevin dynamics."""

from . import _waiting as _waiting  # first: it speaks before torch is loaded
from . import energies, integrations, operators
from .errors import ArgumentError
from .posterior import Posterior
from .samplers import MapEstimate, Progress, Sampler, Schedule, map_estimate, sample

__version__ = "0.1.0"
__all__ = ["ArgumentError", "MapEstimate", "Posterior", "Progress", "Sampler", "Schedule", "energies", "integrations",
           "map_estimate", "operators", "sample"]
