"""From images to a teacher denoiser, and from a teacher to energies (docs/design.md §2)."""
