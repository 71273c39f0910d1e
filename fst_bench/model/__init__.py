"""The embedded model: its text, its pretraining, its weights."""
