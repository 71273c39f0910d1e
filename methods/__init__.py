"""The methods, one file each, to be read top to bottom. `fst` is the paper's; the other fst-* are its ablations.

A file in this folder is a shipped method: `fst_archive.py` defines the one class named `fst-archive`. It imports the
parts it is made of from `fst_bench.method`, `fst_bench.slow` and `fst_bench.fast`, and other methods from this folder.
"""
