"""The presets: one YAML file each, settings over the defaults (see `fst_bench.harness.config`)."""
