"""The streams: one YAML file each (see `fst_bench.tasks.stream.StreamSpec`)."""
