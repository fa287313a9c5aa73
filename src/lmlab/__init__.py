"""lmlab: a Hydra-configured laboratory for training language models from scratch."""
