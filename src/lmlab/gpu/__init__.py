"""The GPU as a model: hardware sheets, and calculators over them that need no GPU."""
