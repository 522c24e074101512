"""MRI reconstruction beside what people use: `python -m benchmarks.mri`, docs/mri.md §7."""
