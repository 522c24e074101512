"""Samplers: from a measurement, an operator and an energy to a posterior or its mode."""

from ..schedule import Schedule
from .map_estimate import MapEstimate, map_estimate
from .run import Progress
from .sampler import Sampler, sample

__all__ = ["MapEstimate", "Progress", "Sampler", "Schedule", "map_estimate", "sample"]
