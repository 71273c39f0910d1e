"""What everything is built on: the types of a rollout, errors in one line, seeds, and the registry of named code."""
