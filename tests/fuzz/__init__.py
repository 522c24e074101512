"""Fuzzing of everything that reads a file: whatever the file, what is said is one line of an ArgumentError."""
