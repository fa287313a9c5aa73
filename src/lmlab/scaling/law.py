"""The law L = E + A/N^alpha + B/D^beta, and what follows from it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from lmlab.errors import UserError

NAMES = ("E", "A", "B", "alpha", "beta")
FLOPS_PER_PARAMETER = 6
"""Of training on one token: C = 6 N D (Kaplan et al. 2020)."""
LEAST_EXPONENT = 1e-3
"""Of alpha and beta; published ones are above 0.05. Below, the loss is constant or rises."""
FARTHEST = 64.0
"""Log of a size over the best one, up to which the ends of the flat region are searched."""


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
        with np.errstate(over="ignore", invalid="ignore"):  # a term of a large power is 0
            return self.E + self.A / parameters**self.alpha + self.B / tokens**self.beta

    @property
    def flat(self) -> tuple[str, ...]:
        """A sentence for each exponent of one law by which the loss does not fall."""
        exponents = (("alpha", self.alpha, "size"), ("beta", self.beta, "number of tokens"))
        return tuple(
            f"{name} is {value:.2g}: the loss does not fall with the {what}; no size is best"
            for name, value, what in exponents
            if not value > LEAST_EXPONENT
        )

    @property
    def exponents(self) -> tuple[Any, Any]:
        """The exponents a and b of the optimum: N ~ C^a, D ~ C^b; NaN where no size is best."""
        total = np.where(np.minimum(self.alpha, self.beta) > 0, self.alpha + self.beta, np.nan)[()]
        return self.beta / total, self.alpha / total

    def optimum(self, flops: Any, cost: Cost = SIX) -> tuple[Any, Any]:
        """Return the parameters and tokens of least loss for a number of FLOPs.

        Raises UserError for one law by which the loss does not fall with both. Those of several
        laws have the limit there, no parameters or no tokens; NaN where it falls with neither.
        """
        if np.ndim(self.alpha) == 0 and self.flat:
            raise UserError(
                f"{'; '.join(self.flat)}; fit runs of more sizes and lengths, each at its best "
                "learning rate"
            )
        slope = self.beta * cost.exponent
        with np.errstate(all="ignore"):
            ratio = np.log(self.alpha * self.A) - np.log(slope * self.B)
            log_size = (ratio + self.beta * np.log(flops / cost.factor)) / (self.alpha + slope)
            limit = np.where(self.alpha > 0, np.inf, np.where(self.beta > 0, 0.0, np.nan))
            inside = np.minimum(self.alpha, self.beta) > 0
            size = np.where(inside, np.exp(log_size), limit)[()]
            return size, cost.tokens(size, flops)

    def best_loss(self, flops: Any, cost: Cost = SIX) -> Any:
        """Return the loss of the optimum."""
        with np.errstate(all="ignore"):
            return self.loss(*self.optimum(flops, cost))

    def flat_region(
        self, flops: float, cost: Cost = SIX, share: float = 0.01
    ) -> tuple[float, float]:
        """Return the range of N whose loss is within a share of the best one at this budget.

        An end is 0 or infinite where the loss stays within the share beyond a factor of e^64.
        """
        best, _ = self.optimum(flops, cost)
        limit = (1 + share) * self.best_loss(flops, cost)

        def above(log_n: float) -> float:
            with np.errstate(all="ignore"):
                n = np.exp(log_n)
                return float(self.loss(n, cost.tokens(n, flops)) - limit)

        from scipy.optimize import brentq

        ends = []
        for sign in (-1, 1):
            far = 1.0
            while (open_end := above(np.log(best) + sign * far) < 0) and far < FARTHEST:
                far *= 2
            if open_end:
                ends.append(np.inf if sign > 0 else 0.0)
                continue
            ends.append(float(np.exp(brentq(above, np.log(best), np.log(best) + sign * far))))
        return min(ends), max(ends)

    def values(self) -> tuple[Any, ...]:
        """Return the constants in the order of `NAMES`."""
        return self.E, self.A, self.B, self.alpha, self.beta


def stacked(constants: Float[np.ndarray, "samples 5"]) -> Law:
    """Return the laws of a bootstrap as one."""
    return Law(*np.asarray(constants, float).T)
