"""Kernels: what the model computes, without the model."""
