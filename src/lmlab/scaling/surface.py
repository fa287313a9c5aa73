"""A surrogate of training: losses from a known law, with the effects that real runs have."""

import hashlib
import json
from dataclasses import asdict, dataclass

import numpy as np

from lmlab.scaling.law import FLOPS_PER_PARAMETER, Law
from lmlab.scaling.trial import COURSE, Config, Space

UNIT_SIZE, UNIT_TOKENS = 1e7, 1e9
"""Size and tokens at which the constants of the hyper-parameters hold."""


@dataclass(frozen=True)
class Surface:
    """The law, and factors of the loss for learning rate, batch size and shape.

    Each factor is 1 + k (log x/x_best)^2; the best learning rate is a power law of the size, the
    best batch size one of the tokens.
    """

    law: Law
    best_rate: float
    """For 1e7 parameters."""
    rate_exponent: float
    rate_penalty: float
    best_batch: float
    """For 1e9 tokens."""
    batch_exponent: float
    batch_penalty: float
    best_aspect: float
    """d_model / num_layers."""
    aspect_penalty: float
    noise: float
    """Standard deviation of the log of the loss."""
    seed: int

    @classmethod
    def draw(cls, seed: int) -> "Surface":
        """Return a random surface whose optimum at 1e18 FLOPs lies inside of the course's sizes."""
        rng = np.random.default_rng([seed, 336])
        alpha, beta = rng.uniform(0.27, 0.45, 2)
        size = np.exp(rng.uniform(np.log(3e7), np.log(1.5e8)))
        reducible = rng.uniform(0.6, 1.6)
        tokens = 1e18 / (FLOPS_PER_PARAMETER * size)
        # at the optimum alpha A / N^alpha = beta B / D^beta
        by_size = reducible * beta / (alpha + beta)
        law = Law(
            E=rng.uniform(1.5, 3.0),
            A=by_size * size**alpha,
            B=(reducible - by_size) * tokens**beta,
            alpha=alpha,
            beta=beta,
        )
        return cls(
            law=law,
            best_rate=float(np.exp(rng.uniform(np.log(2.5e-4), np.log(9e-4)))),
            rate_exponent=rng.uniform(-0.3, -0.05),
            rate_penalty=rng.uniform(0.005, 0.03),
            best_batch=float(np.exp(rng.uniform(np.log(80), np.log(300)))),
            batch_exponent=rng.uniform(0.0, 0.3),
            batch_penalty=rng.uniform(0.002, 0.015),
            best_aspect=rng.uniform(25, 100),
            aspect_penalty=rng.uniform(0.0, 0.003),
            noise=rng.uniform(0.001, 0.005),
            seed=seed,
        )

    def truth(self, config: Config) -> float:
        """Return the loss without noise."""
        size, tokens = config.parameters, config.tokens
        missed = float(np.log(config.learning_rate / self.best_rate_of(size, tokens)))
        batch = self.best_batch * (tokens / UNIT_TOKENS) ** self.batch_exponent
        factor = (
            (1 + self.cost_of_rate(missed))
            * (1 + self.batch_penalty * np.log(config.batch_size / batch) ** 2)
            * (1 + self.aspect_penalty * self._aspect(config) ** 2)
        )
        return float(self.base(size, tokens) * factor)

    def base(self, size: float, tokens: float) -> float:
        """Return the loss with the best hyper-parameters."""
        return float(self.law.loss(size, tokens))

    def best_rate_of(self, size: float, tokens: float) -> float:
        """Return the best learning rate of a run."""
        return self.best_rate * (size / UNIT_SIZE) ** self.rate_exponent

    def cost_of_rate(self, missed: float) -> float:
        """Return the share of loss that a learning rate adds; `missed` is log(rate / best)."""
        return self.rate_penalty * missed**2

    def _aspect(self, config: Config) -> float:
        return float(np.log(config.d_model / config.num_layers / self.best_aspect))

    def measure(self, config: Config) -> float:
        """Return the loss with the noise of this configuration, the same each time."""
        text = json.dumps([self.seed, config.to_dict()])
        digest = hashlib.sha256(text.encode()).digest()
        rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
        return self.truth(config) * float(np.exp(rng.normal(0, self.noise)))

    def best(self, flops: int, space: Space = COURSE) -> tuple[Config, float]:
        """Return the configuration of least loss at a number of FLOPs, and its loss."""
        low, high = space.learning_rates
        found = []
        for shape in space.shapes.all():
            tokens = flops / (FLOPS_PER_PARAMETER * shape.parameters)
            rate = float(np.clip(self.best_rate_of(shape.parameters, tokens), low, high))
            for batch in space.batch_sizes:
                config = Config(
                    shape.d_model, shape.num_layers, shape.num_heads, batch, rate, flops
                )
                found.append((self.truth(config), config))
        loss, config = min(found)
        return config, loss

    def describe(self) -> dict[str, float]:
        """Return the constants as plain values."""
        values = asdict(self)
        return {**values.pop("law"), **values}
