"""The models that ship: their pretraining text, their pretraining, their weights, and the abilities no stream trains."""
