"""The methods: one file each, read top to bottom like the algorithm it is. `fst` is the paper's; the other fst-* are its ablations.

A file in this folder is a shipped method: `fst_archive.py` defines the one class named `fst-archive`.
"""
