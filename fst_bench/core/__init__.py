"""What everything stands on: the types of a rollout, errors in one line, seeds, and the registry of what does not ship."""
