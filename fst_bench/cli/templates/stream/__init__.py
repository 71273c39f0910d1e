"""A stream to begin with."""
