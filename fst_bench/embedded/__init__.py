"""The embedded models: their pretraining text, their pretraining, their weights, and the abilities no stream trains."""
