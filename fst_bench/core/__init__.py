"""The base of everything else: the types of a rollout, errors in one line, seeds, and the registry of named code."""
