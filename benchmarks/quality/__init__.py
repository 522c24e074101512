"""The field's table: restoration by many methods with one teacher. `python -m benchmarks.quality`, and docs/quality.md."""
