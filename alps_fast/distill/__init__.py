"""From images to a teacher denoiser, and from a teacher to energies (design.md §2.2)."""
