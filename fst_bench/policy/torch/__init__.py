"""The `torch` backend: one process, CPU or one GPU."""
