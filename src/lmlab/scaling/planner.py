"""Which runs to make under a FLOP budget, to predict the loss at a larger number of FLOPs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lmlab.errors import UserError
from lmlab.scaling.intervals import Interval, interval
from lmlab.scaling.joint import JointFit, fit_joint
from lmlab.scaling.law import FLOPS_PER_PARAMETER
from lmlab.scaling.shapes import Shape
from lmlab.scaling.trial import Config, Space, Trial

TOKENS_PER_PARAMETER = 20
"""First guess of the optimum (Hoffmann et al. 2022)."""
RATES = 5
"""Learning rates of the first round."""
NEAR = 1.7
"""Factor to the learning rates beside the best one, in later rounds."""
ROUNDS = (
    ("hyper-parameters", 0.0015, (1 / 3, 1, 3)),
    ("isoflop 1", 0.0016, (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)),
    ("isoflop 2", 0.005, (0.1, 0.15, 0.2, 0.3, 0.45, 0.6, 0.9, 1.2, 1.7, 2.4, 5)),
    ("isoflop 3", 0.016, (0.1, 0.2, 0.5, 1, 2, 5, 8)),
    ("isoflop 4", 0.155, (0.35, 0.8, 1.4, 3)),
)
"""Rounds: name, share of the budget that a run may take, sizes relative to the best one."""
LAST = "remainder"


@dataclass(frozen=True)
class Round:
    """Runs that are chosen together and may be made in any order."""

    name: str
    configs: tuple[Config, ...]

    @property
    def flops(self) -> int:
        """FLOPs of all runs."""
        return sum(config.train_flops for config in self.configs)


@dataclass(frozen=True)
class Prediction:
    """What a plan's runs predict for a number of FLOPs."""

    flops: float
    loss: float
    loss_interval: Interval
    shape: Shape
    parameters: float
    parameters_interval: Interval
    tokens: float
    learning_rate: float
    batch_size: int


def next_round(
    rounds: Sequence[Round], trials: Sequence[Trial], space: Space, budget: float
) -> Round | None:
    """Return the round after these from the trials so far; None when the budget is used.

    A round without runs is left out. The result depends on nothing else, so that a plan can be
    continued.
    """
    for number in range(_number_after(rounds), len(ROUNDS) + 1):
        if (round_ := _round(number, trials, space, budget)).configs:
            return round_
    return None


def _number_after(rounds: Sequence[Round]) -> int:
    """Return the place in `ROUNDS` after the last of these rounds; some may be left out."""
    if not rounds:
        return 0
    names = [name for name, *_ in ROUNDS]
    last = rounds[-1].name
    return names.index(last) + 1 if last in names else len(ROUNDS)


def _round(number: int, trials: Sequence[Trial], space: Space, budget: float) -> Round:
    spent = sum(trial.config.train_flops for trial in trials)
    done = {trial.config for trial in trials}
    if number == 0:
        configs = _first(space, budget)
        name = ROUNDS[0][0]
    else:
        fit = fit_joint(trials, space.batch_sizes)
        if number < len(ROUNDS):
            name, share, factors = ROUNDS[number]
            configs = _isoflop(fit, space, _flops(space, share * budget), factors, number)
        else:
            name, configs = LAST, _remainder(fit, space, budget - spent)
    chosen: list[Config] = []
    for config in dict.fromkeys(configs):
        fits = config.tokens >= space.least_tokens
        if fits and config not in done and spent + config.train_flops <= budget:
            chosen.append(config)
            spent += config.train_flops
    return Round(name, tuple(chosen))


def predict(
    trials: Sequence[Trial], space: Space, flops: float, *, samples: int = 200
) -> Prediction:
    """Return the best shape, its loss and hyper-parameters at `flops`, with 95 % intervals."""
    fit = fit_joint(trials, space.batch_sizes, samples=samples)
    size, _ = fit.law.optimum(flops)
    shape = space.shapes.nearest(float(size))
    tokens = flops / (FLOPS_PER_PARAMETER * shape.parameters)
    loss, drawn = fit.best_loss(shape.parameters, tokens, space.learning_rates)
    return Prediction(
        flops=flops,
        loss=loss,
        loss_interval=interval(drawn),
        shape=shape,
        parameters=float(size),
        parameters_interval=interval(fit.laws.optimum(flops)[0]),
        tokens=tokens,
        learning_rate=_rate(fit, shape, space),
        batch_size=fit.best_batch(tokens),
    )


def require_budget(space: Space, budget: float) -> None:
    """Raise UserError for a budget that does not pay for the first round."""
    if _flops(space, ROUNDS[0][1] * budget) is None:
        least = space.train_flops[0] / ROUNDS[0][1]
        raise UserError(
            f"--budget {budget:g} is too small: a plan needs {least:.3g} FLOPs, for runs of at "
            f"least {space.train_flops[0]:.3g}"
        )


def _flops(space: Space, most: float) -> int | None:
    """Return the largest number of FLOPs of a run up to a limit."""
    return max((flops for flops in space.train_flops if flops <= most), default=None)


def _first(space: Space, budget: float) -> list[Config]:
    """Return learning rates for three sizes, and the other batch size at the middle one."""
    require_budget(space, budget)
    _, share, factors = ROUNDS[0]
    flops = _flops(space, share * budget) or 0
    guess = (flops / (FLOPS_PER_PARAMETER * TOKENS_PER_PARAMETER)) ** 0.5
    shapes = space.shapes.spread(guess, factors)
    tokens = flops / (FLOPS_PER_PARAMETER * shapes[0].parameters)
    if tokens < space.least_tokens:
        raise UserError(
            f"--budget {budget:g} is too small: its first runs train {shapes[0].parameters:,} "
            f"parameters on {tokens:.3g} tokens, less than {space.least_tokens:,.0f}; raise it, or "
            "lower trainer.batch_size or model.context_length"
        )
    rates = _rounded(np.geomspace(*space.learning_rates, RATES))
    first, *others = space.batch_sizes
    configs = [_config(shape, first, rate, flops) for shape in shapes for rate in rates]
    middle = shapes[len(shapes) // 2]
    return configs + [
        _config(middle, batch, rate, flops) for batch in others for rate in rates[1::2]
    ]


def _isoflop(
    fit: JointFit, space: Space, flops: int | None, factors: tuple[float, ...], number: int
) -> list[Config]:
    if flops is None:
        return []
    centre, _ = fit.law.optimum(float(flops))
    configs = [_best(fit, space, shape, flops) for shape in space.shapes.spread(centre, factors)]
    middle = _best(fit, space, space.shapes.nearest(centre), flops)
    if number < len(ROUNDS) - 1:  # neighbours tell how the best values change with the scale
        low, high = space.learning_rates
        rates = [middle.learning_rate * NEAR, middle.learning_rate / NEAR]
        shape = Shape(middle.d_model, middle.num_layers, middle.num_heads)
        configs += [
            _config(shape, middle.batch_size, rate, flops)
            for rate in _rounded(np.array(rates))
            if low <= rate <= high
        ][: 3 - number // 2]
        configs += [
            _config(shape, batch, middle.learning_rate, flops)
            for batch in space.batch_sizes
            if batch != middle.batch_size
        ]
    return configs


def _remainder(fit: JointFit, space: Space, left: float) -> list[Config]:
    """Return one more run, the largest that is left to pay, beside the optimum."""
    flops = _flops(space, left)
    if flops is None or flops < space.train_flops[-1] / 100:
        return []
    centre, _ = fit.law.optimum(float(flops))
    return [
        _best(fit, space, space.shapes.nearest(centre * factor), flops)
        for factor in (0.8, 1.4, 0.5, 2.2, 0.35)
    ]


def _best(fit: JointFit, space: Space, shape: Shape, flops: int) -> Config:
    tokens = flops / (FLOPS_PER_PARAMETER * shape.parameters)
    return _config(shape, fit.best_batch(tokens), _rate(fit, shape, space), flops)


def _rate(fit: JointFit, shape: Shape, space: Space) -> float:
    rate = np.clip(fit.best_rate(shape.parameters), *space.learning_rates)
    return _rounded(np.array([rate]))[0]


def _rounded(rates: np.ndarray) -> list[float]:
    return [float(f"{rate:.3g}") for rate in rates]


def _config(shape: Shape, batch: int, rate: float, flops: int) -> Config:
    return Config(shape.d_model, shape.num_layers, shape.num_heads, batch, rate, flops)
