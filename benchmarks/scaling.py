"""Scaling laws of published tables against the figures published with them, and simulations.

python benchmarks/scaling.py course isoflops_curves.json
python benchmarks/scaling.py chinchilla svg_extracted_data.csv
python benchmarks/scaling.py over-training gadre2024_losses.csv
python benchmarks/scaling.py coverage --repetitions 300
python benchmarks/scaling.py planner --seeds 10 --form coupled

Tables: the course's 72 runs (github.com/stanford-cs336/assignment3-scaling, MIT); runs read off
Chinchilla's figure (Besiroglu et al. 2024, github.com/epoch-research/analyzing-chinchilla, MIT);
runs of Gadre et al. 2024 (github.com/mlfoundations/scaling, MIT).
"""

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from lmlab.scaling.files import read_table
from lmlab.scaling.intervals import interval
from lmlab.scaling.isoflop import fit_isoflop
from lmlab.scaling.law import NAMES, Law
from lmlab.scaling.overtraining import fit_overtraining
from lmlab.scaling.parametric import fit_parametric
from lmlab.scaling.planner import Round, next_round, predict
from lmlab.scaling.surface import UNIT_TOKENS, Surface
from lmlab.scaling.table import make_runs
from lmlab.scaling.trial import COURSE as SPACE
from lmlab.scaling.trial import COURSE_BUDGET, Trial
from lmlab.text import markdown_table

COURSE = Law(2.69, 1606.4, 3210.7, 0.34, 0.36)
BESIROGLU = Law(1.8172, 477.84, 2143.86, 0.34731, 0.36718)
PUBLISHED = {"E": (1.769, 1.871), "alpha": (0.317, 0.373), "beta": (0.331, 0.415)}
PUBLISHED_ERRORS = (0.7103, 0.7320)
"""Per cent, of 1.4B parameters at M = 640 and 6.9B at M = 20."""
THREADS = 2


def course(path: Path) -> None:
    runs = read_table(path)
    start = time.perf_counter()
    fit = fit_parametric(runs, threads=THREADS)
    _constants(fit.law, COURSE, time.perf_counter() - start)
    for flops in (1e23, 1e24):
        print(f"N({flops:g}) = {fit.law.optimum(flops)[0]:.4g}")


def chinchilla(path: Path) -> None:
    runs = read_table(path, drop_highest=5)
    start = time.perf_counter()
    fit = fit_parametric(runs, samples=4000, threads=THREADS)
    seconds = time.perf_counter() - start
    _constants(fit.law, BESIROGLU, seconds)
    print(f"objective {fit.objective:.7e}, published 1.0182740e-03; 4,000 samples")
    rows = [
        [name, f"{i.low:.4f} to {i.high:.4f}", " to ".join(map(str, PUBLISHED[name]))]
        for name, i in fit.intervals().items()
        if name in PUBLISHED
    ]
    print(markdown_table(("", "95 % interval", "published"), rows, aligned=True))


def _constants(law: Law, published: Law, seconds: float) -> None:
    rows = []
    for name in NAMES:
        found, wanted = getattr(law, name), getattr(published, name)
        rows.append([name, f"{found:.6g}", f"{wanted:g}", f"{abs(found / wanted - 1):.1e}"])
    print(markdown_table(("", "fitted", "published", "off by"), rows, aligned=True))
    print(f"{seconds:.1f} s on {THREADS} threads")


def over_training(path: Path) -> None:
    names = {"loss": "loss_c4_val"}
    runs = read_table(path, names=names, where={"dataset": "rpj"})
    multiplier = runs.column("chinchilla_multiplier")
    smallest = runs.parameters == runs.parameters.min()
    fitted = (multiplier == 1) & (runs.parameters < 1e9) | smallest & (multiplier == 16)
    law = fit_overtraining(runs.take(fitted)).law
    print(f"fitted to {fitted.sum()} runs: {law}")
    large = (runs.parameters > 1e9) & ((multiplier == 32) | (runs.parameters > 5e9))
    test = runs.take(np.flatnonzero(large))
    errors = 100 * np.abs(law.loss(test.parameters, test.tokens) / test.loss - 1)
    for size, tokens, error, published in zip(
        test.parameters, test.tokens, errors, PUBLISHED_ERRORS, strict=True
    ):
        ratio = tokens / size
        print(f"{size:.3g} parameters, M = {ratio:.0f}: {error:.4f} %, published {published:.4f} %")


def coverage(repetitions: int, budgets: int, sizes: int, processes: int) -> None:
    """Simulate IsoFLOP tables with noise and count how often 95 % intervals hold the truth."""
    start = time.perf_counter()
    with ProcessPoolExecutor(processes) as pool:
        one = partial(_covered, budgets, sizes)
        found = list(pool.map(one, range(repetitions), chunksize=5))
    rows = []
    for name in found[0]:
        share = float(np.mean([held[name] for held in found]))
        rows.append([name, f"{100 * share:.1f} %", "" if 0.92 <= share <= 0.98 else "outside"])
    head = (f"{repetitions} repetitions", "held", "of 92 to 98 %")
    print(markdown_table(head, rows, aligned=True))
    print(f"{time.perf_counter() - start:.0f} s, {processes} processes")


def _covered(budgets: int, sizes: int, seed: int) -> dict[str, bool]:
    """Return which intervals of one simulated table hold the truth.

    Approach 2 needs three budgets and is left out of smaller tables.
    """
    rng = np.random.default_rng([seed, 95])
    low, high = zip((1.5, 2.5), (200, 1000), (500, 3000), (0.3, 0.38), (0.3, 0.38), strict=True)
    truth = Law(*rng.uniform(low, high))
    target = 1e22
    flops = np.repeat(np.geomspace(1e18, 1e21, budgets), sizes)
    size = truth.optimum(flops)[0] * np.tile(np.geomspace(0.2, 5, sizes), budgets)
    loss = truth.loss(size, flops / 6 / size) * np.exp(rng.normal(0, 0.005, len(flops)))
    runs = make_runs(parameters=size, flops=flops, loss=loss)
    third = fit_parametric(runs, samples=500, seed=seed, threads=1)
    size_at, loss_at = truth.optimum(target)[0], truth.best_loss(target)
    laws, intervals = third.laws, third.intervals()
    values = {name: getattr(truth, name) for name in NAMES} | {"a": truth.exponents[0]}
    held = {f"approach 3: {name}": value in intervals[name] for name, value in values.items()}
    held |= {
        "approach 3: loss at 1e22": loss_at in interval(laws.best_loss(target)),
        "approach 3: N at 1e22": size_at in interval(laws.optimum(target)[0]),
    }
    if budgets < 3:
        return held
    second = fit_isoflop(runs, seed=seed)
    return held | {
        "approach 2: a": values["a"] in second.size_law.exponent_interval,
        "approach 2: N at 1e22": size_at in second.size_law.interval(target),
    }


class Coupled(Surface):
    """Size and tokens limit each other: E + sqrt((A/N^alpha)^2 + (B/D^beta)^2)."""

    def base(self, size: float, tokens: float) -> float:
        """Return the loss with the best hyper-parameters."""
        law = self.law
        by_size, by_tokens = law.A / size**law.alpha, law.B / tokens**law.beta
        return float(law.E + np.hypot(by_size, by_tokens))


class SteepRates(Surface):
    """The best learning rate falls with the tokens, and rates above it cost three times as much."""

    def best_rate_of(self, size: float, tokens: float) -> float:
        """Return the best learning rate of a run."""
        return super().best_rate_of(size, tokens) * (tokens / UNIT_TOKENS) ** -0.1

    def cost_of_rate(self, missed: float) -> float:
        """Return the share of loss that a learning rate adds."""
        return super().cost_of_rate(missed) * (3 if missed > 0 else 1)


class Floor(Surface):
    """A floor that falls slowly with the compute, on top of the law: 0.2 (C/1e18)^-0.05."""

    def base(self, size: float, tokens: float) -> float:
        """Return the loss with the best hyper-parameters."""
        flops = 6 * size * tokens
        return super().base(size, tokens) + 0.2 * (flops / 1e18) ** -0.05


FORMS: dict[str, type[Surface]] = {
    "law": Surface, "coupled": Coupled, "steep_rates": SteepRates, "floor": Floor
}  # fmt: skip


def planner(seeds: int, form: str) -> None:
    """Play the course's game on hidden surfaces: plan under 2e18 FLOPs, predict at 1e19."""
    target = 10**19
    good = held = 0
    for seed in range(seeds):
        surface = FORMS[form].draw(seed)
        trials: list[Trial] = []
        rounds: list[Round] = []
        while (round_ := next_round(rounds, trials, SPACE, COURSE_BUDGET)) is not None:
            trials += [Trial(config, surface.measure(config)) for config in round_.configs]
            rounds.append(round_)
        found, (_, truth) = predict(trials, SPACE, target), surface.best(target)
        error = found.loss / truth - 1
        good += abs(error) < 0.01
        held += truth in found.loss_interval
        print(
            f"surface {seed}: {len(trials)} runs, predicted {found.loss:.4f}, true {truth:.4f}, "
            f"{100 * error:+.2f} %, noise {100 * surface.noise:.2f} %"
        )
    print(f"{good} of {seeds} within 1 %, {held} of {seeds} inside of the 95 % interval")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    subjects = parser.add_subparsers(dest="subject", required=True)
    tables = {"course": course, "chinchilla": chinchilla, "over-training": over_training}
    for name in tables:
        subjects.add_parser(name).add_argument("table", type=Path)
    covered = subjects.add_parser("coverage")
    covered.add_argument("--repetitions", type=int, default=300)
    covered.add_argument("--budgets", type=int, default=7, help="of each table")
    covered.add_argument("--sizes", type=int, default=8, help="of each budget")
    covered.add_argument("--processes", type=int, default=THREADS)
    planned = subjects.add_parser("planner")
    planned.add_argument("--seeds", type=int, default=10)
    planned.add_argument("--form", choices=FORMS, default="law", help="of the hidden surfaces")
    options = parser.parse_args()
    if options.subject == "coverage":
        coverage(options.repetitions, options.budgets, options.sizes, options.processes)
    elif options.subject == "planner":
        planner(options.seeds, options.form)
    else:
        tables[options.subject](options.table)


if __name__ == "__main__":
    main()
