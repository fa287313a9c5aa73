"""The law L = E + A/N^alpha + B/D^beta, and what follows from it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

NAMES = ("E", "A", "B", "alpha", "beta")
FLOPS_PER_PARAMETER = 6
"""Of training on one token: C = 6 N D (Kaplan et al. 2020)."""


@dataclass(frozen=True)
class Cost:
    """FLOPs of training: C = factor N^exponent D."""

    factor: float = FLOPS_PER_PARAMETER
    exponent: float = 1.0

    def tokens(self, parameters: Any, flops: Any) -> Any:
        """Return the tokens that a size is trained on for these FLOPs."""
        return flops / (self.factor * parameters**self.exponent)

    def __str__(self) -> str:
        """Return the formula."""
        power = "" if self.exponent == 1 else f"^{self.exponent:.3f}"
        return f"C = {self.factor:.3g} N{power} D"


SIX = Cost()
"""C = 6 N D (Kaplan et al. 2020)."""


@dataclass(frozen=True)
class Law:
    """Loss in nats of N parameters and D tokens (Hoffmann et al. 2022, equation 2).

    The constants may be arrays of one shape; all results then have it as well.
    """

    E: Any
    A: Any
    B: Any
    alpha: Any
    beta: Any

    def loss(self, parameters: Any, tokens: Any) -> Any:
        """Return the loss of a run."""
        return self.E + self.A / parameters**self.alpha + self.B / tokens**self.beta

    @property
    def exponents(self) -> tuple[Any, Any]:
        """The exponents a and b of the optimum: N ~ C^a, D ~ C^b."""
        total = self.alpha + self.beta
        return self.beta / total, self.alpha / total

    def optimum(self, flops: Any, cost: Cost = SIX) -> tuple[Any, Any]:
        """Return the parameters and tokens of least loss for a number of FLOPs."""
        slope = self.beta * cost.exponent
        ratio = self.alpha * self.A / (slope * self.B)
        size = (ratio * (flops / cost.factor) ** self.beta) ** (1 / (self.alpha + slope))
        return size, cost.tokens(size, flops)

    def best_loss(self, flops: Any, cost: Cost = SIX) -> Any:
        """Return the loss of the optimum."""
        return self.loss(*self.optimum(flops, cost))

    def flat_region(
        self, flops: float, cost: Cost = SIX, share: float = 0.01
    ) -> tuple[float, float]:
        """Return the range of N whose loss is within a share of the best one at this budget."""
        best, _ = self.optimum(flops, cost)
        limit = (1 + share) * self.best_loss(flops, cost)

        def above(log_n: float) -> float:
            n = np.exp(log_n)
            return float(self.loss(n, cost.tokens(n, flops)) - limit)

        from scipy.optimize import brentq

        ends = []
        for sign in (-1, 1):
            far = 1.0
            while above(np.log(best) + sign * far) < 0 and far < 64:
                far *= 2
            ends.append(float(np.exp(brentq(above, np.log(best), np.log(best) + sign * far))))
        return min(ends), max(ends)

    def values(self) -> tuple[Any, ...]:
        """Return the constants in the order of `NAMES`."""
        return self.E, self.A, self.B, self.alpha, self.beta


def stacked(constants: Float[np.ndarray, "samples 5"]) -> Law:
    """Return the laws of a bootstrap as one."""
    return Law(*np.asarray(constants, float).T)
