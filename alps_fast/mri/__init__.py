"""From k-space as a scanner leaves it to k-space that can be sampled: plain functions, each leaves a sentence of what it did.

    prepared = prepare(read_kspace("scan.h5"), noise=scan_without_pulses)
    print("\\n".join(prepared.words))
    found = alps_fast.io.scaled_kspace(prepared.data, prepared.noise_std)
    post = alps_fast.sample(found.y, found.operator, alps_fast.energies.load("brain"))
"""

from .espirit import estimate_maps
from .hybrid import hybrid_slices
from .steps import (
    Done,
    Prepared,
    compress_coils,
    noise_covariance,
    normalise_maps,
    prepare,
    prewhiten,
    recentre,
    remove_oversampling,
)

__all__ = ["Done", "Prepared", "compress_coils", "estimate_maps", "hybrid_slices", "noise_covariance", "normalise_maps",
           "prepare", "prewhiten", "recentre", "remove_oversampling"]
