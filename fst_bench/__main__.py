"""`python -m fst_bench` is `fst-bench`."""

from fst_bench.cli import main

raise SystemExit(main())
