"""The lm-eval group `fst_general`: abilities that no stream trains, as lm-eval YAML and jsonl."""
