"""A method to begin with."""
