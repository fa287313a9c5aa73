"""What a model costs: parameters and floating-point operations, counted on the built model."""
