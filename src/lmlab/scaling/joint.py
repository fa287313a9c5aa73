"""The law of a plan's runs: size and tokens, with learning rate and batch size."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from lmlab.scaling.law import Law, stacked
from lmlab.scaling.trial import Config, Trial

EXPONENT, DEVIATION = 0.35, 0.08
"""Prior of alpha and beta: where published fits lie."""
RATE_EXPONENT, RATE_DEVIATION = -0.15, 0.15
"""Prior of the exponent of the best learning rate in the size."""
LEAST_NOISE = 1e-3
"""Of log loss; runs of fewer than the constants do not tell it."""
LAW, RATE, BATCH = slice(0, 5), slice(5, 8), slice(8, 10)
"""log E, log A, log B, alpha, beta; log k, log of the best rate, its exponent; of the batch."""


@dataclass(frozen=True)
class JointFit:
    """log L = log(E + A/N^alpha + B/D^beta) + k log^2(rate / best) + batch (g + h log D).

    The best rate is a power law of N; `batch` is 1 for the larger of two batch sizes.
    """

    x: Float[np.ndarray, " 10"]
    samples: Float[np.ndarray, "samples 10"]
    centre: Float[np.ndarray, " 2"]
    """Means of log N and log D."""
    noise: float
    """Standard deviation of the residuals of log loss."""
    residuals: Float[np.ndarray, " runs"]
    batch_sizes: tuple[int, ...]

    @property
    def law(self) -> Law:
        """The law at the best learning rate and the smaller batch size."""
        return Law(*(float(v) for v in self._constants(self.x[None])[0]))

    @property
    def laws(self) -> Law:
        """The laws of the samples as one."""
        return stacked(self._constants(self.samples))

    def _constants(self, x: Float[np.ndarray, "samples 10"]) -> Float[np.ndarray, "samples 5"]:
        e, a, b, alpha, beta = x[:, LAW].T
        powers = (e, a + alpha * self.centre[0], b + beta * self.centre[1])
        return np.stack([*(np.exp(power) for power in powers), alpha, beta], 1)

    def best_rate(self, parameters: float) -> float:
        """Return the learning rate of least loss for a size."""
        _, log_rate, exponent = self.x[RATE]
        return float(np.exp(log_rate + exponent * (np.log(parameters) - self.centre[0])))

    def best_batch(self, tokens: float) -> int:
        """Return the batch size of least loss for a number of tokens."""
        return self.batch_sizes[int(self._batch_effect(self.x[None], tokens)[0] < 0)]

    def _batch_effect(
        self, x: Float[np.ndarray, "samples 10"], tokens: float
    ) -> Float[np.ndarray, " samples"]:
        if len(self.batch_sizes) < 2:
            return np.zeros(len(x))
        return x[:, 8] + x[:, 9] * (np.log(tokens) - self.centre[1])

    def best_loss(
        self, parameters: float, tokens: float, rates: tuple[float, float]
    ) -> tuple[float, Float[np.ndarray, " samples"]]:
        """Return the loss with the best batch and a rate within bounds, and its samples."""
        both = np.concatenate([self.x[None], self.samples])
        base = stacked(self._constants(both)).loss(parameters, tokens)
        log_rate = both[:, 6] + both[:, 7] * (np.log(parameters) - self.centre[0])
        missed = log_rate - np.clip(log_rate, *np.log(rates))
        factor = np.exp(both[:, 5]) * missed**2 + np.minimum(self._batch_effect(both, tokens), 0)
        losses = base * np.exp(factor)
        return float(losses[0]), losses[1:]


def fit_joint(
    trials: Sequence[Trial], batch_sizes: tuple[int, ...], *, samples: int = 0, seed: int = 0
) -> JointFit:
    """Fit by least squares on log loss, with priors of the exponents; samples add noise to runs.

    Raises UserError through `make_runs` for losses that are not finite.
    """
    configs = [trial.config for trial in trials]
    log_loss = np.log([trial.loss for trial in trials])
    data = _Data.of(configs, batch_sizes)
    best, noise = _fit(data, log_loss)
    fitted = data.predict(best)
    residuals = log_loss - fitted
    rng = np.random.default_rng(seed)
    drawn = np.stack(
        [
            _refit(data, fitted + rng.normal(0, noise, len(fitted)), best, noise, rng)
            for _ in range(samples)
        ]
        or [best]
    )
    return JointFit(best, drawn, data.centre, noise, residuals, batch_sizes)


@dataclass(frozen=True)
class _Data:
    log_n: Float[np.ndarray, " runs"]
    log_d: Float[np.ndarray, " runs"]
    log_rate: Float[np.ndarray, " runs"]
    larger: Float[np.ndarray, " runs"]
    centre: Float[np.ndarray, " 2"]

    @classmethod
    def of(cls, configs: Sequence[Config], batch_sizes: tuple[int, ...]) -> "_Data":
        log_n = np.log([config.parameters for config in configs])
        log_d = np.log([config.tokens for config in configs])
        rates = np.log([config.learning_rate for config in configs])
        larger = np.array([float(config.batch_size == batch_sizes[-1]) for config in configs])
        larger *= len(batch_sizes) > 1
        centre = np.array([log_n.mean(), log_d.mean()])
        return cls(log_n - centre[0], log_d - centre[1], rates, larger, centre)

    def predict(self, x: Float[np.ndarray, " 10"]) -> Float[np.ndarray, " runs"]:
        e, a, b, alpha, beta = x[LAW]
        by_size = np.exp(np.minimum(a - alpha * self.log_n, 300))
        by_data = np.exp(np.minimum(b - beta * self.log_d, 300))
        log_k, best, exponent = x[RATE]
        missed = self.log_rate - best - exponent * self.log_n
        batch = self.larger * (x[8] + x[9] * self.log_d)
        return np.log(np.exp(e) + by_size + by_data) + np.exp(log_k) * missed**2 + batch


def _prior(x: Float[np.ndarray, " 10"], centre: Float[np.ndarray, " 10"]) -> np.ndarray:
    """Return the deviations from the priors, in their standard deviations."""
    deviation = np.array(
        [2.0, 4.0, 4.0, DEVIATION, DEVIATION, 1.0, 1.5, RATE_DEVIATION, 0.03, 0.01]
    )
    return (x - centre) / deviation


def _fit(data: _Data, log_loss: Float[np.ndarray, " runs"]) -> tuple[np.ndarray, float]:
    centre = _prior_centre(data, log_loss)
    noise = 5e-3
    x = centre
    for _ in range(4):  # the prior counts in units of the noise, which the fit tells
        x = min((_solve(data, log_loss, start, noise, centre) for start in _starts(centre, x)),
                key=lambda found: found[1])[0]  # fmt: skip
        free = max(1, len(log_loss) - 8)
        residual = log_loss - data.predict(x)
        noise = max(LEAST_NOISE, float(np.sqrt((residual**2).sum() / free)))
    return x, noise


def _starts(centre: np.ndarray, x: np.ndarray) -> list[np.ndarray]:
    starts = [x, centre]
    for alpha, beta in ((0.28, 0.42), (0.42, 0.28)):
        other = centre.copy()
        other[3:5] = alpha, beta
        starts.append(other)
    return starts


def _prior_centre(data: _Data, log_loss: Float[np.ndarray, " runs"]) -> Float[np.ndarray, " 10"]:
    least = float(np.exp(log_loss.min()))
    parts = np.log([0.6 * least, 0.3 * least, 0.3 * least])
    rate = float(data.log_rate.mean())
    return np.array([*parts, EXPONENT, EXPONENT, np.log(0.012), rate, RATE_EXPONENT, 0.0, 0.0])


def _solve(
    data: _Data, log_loss: np.ndarray, start: np.ndarray, noise: float, centre: np.ndarray
) -> tuple[np.ndarray, float]:
    from scipy.optimize import least_squares

    def residual(x: np.ndarray) -> np.ndarray:
        return np.concatenate([(data.predict(x) - log_loss) / noise, _prior(x, centre)])

    found = least_squares(residual, start, method="lm", max_nfev=4000)
    return found.x, float(found.cost)


def _refit(
    data: _Data, log_loss: np.ndarray, start: np.ndarray, noise: float, rng: np.random.Generator
) -> np.ndarray:
    """Return the fit of noisy losses around a prior drawn anew: a sample of the posterior."""
    deviation = 1 / _prior(np.ones(10), np.zeros(10))
    wide = _prior_centre(data, log_loss)
    centre = wide + deviation * rng.normal(size=len(wide))
    return _solve(data, log_loss, start, noise, centre)[0]
