"""What is measured, installed as alps_fast.bench: one file an op, and whole runs, for `alps-fast bench` and for pytest."""
