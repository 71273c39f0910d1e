"""A task to begin with."""
