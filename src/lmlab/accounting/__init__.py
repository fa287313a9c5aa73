"""Parameters, FLOPs and memory of a model, counted on the built model."""
