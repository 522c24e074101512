"""Samplers: from a measurement, an operator and an energy to a posterior or its mode."""

from .map_estimate import MapEstimate, map_estimate
from .sampler import Progress, Sampler, sample
from .schedule import Schedule

__all__ = ["MapEstimate", "Progress", "Sampler", "Schedule", "map_estimate", "sample"]
