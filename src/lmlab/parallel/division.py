"""Among how many processes the memory of training is divided."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Division:
    """Processes that share each part of the memory; 1: every process holds it whole."""

    weights: int = 1
    """Of weights and gradients."""
    optimizer_state: int = 1
    activations: int = 1
    """Of what a sequence leaves for the backward pass; at most, as a part of it is in each."""


WHOLE = Division()
"""Every process holds everything."""
