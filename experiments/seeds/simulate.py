"""False positives and power of the comparisons between settings, by simulation.

python experiments/seeds/simulate.py          # about ten minutes on one core
"""

import argparse
import sys
from pathlib import Path
from unittest import mock

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

from benchmarks.tables import markdown, put_section  # noqa: E402

from lmlab.runs.statistics import Comparisons  # noqa: E402

SETTINGS, SEEDS = (2, 4, 8), (2, 3, 5)
DESIGNS = {"paired, correlation 0.5": 0.5, "paired, correlation 0.9": 0.9, "other seeds": None}


def main() -> None:
    """Write the table of rates into the README."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sweeps", type=int, default=400, help="simulated sweeps for a figure")
    options = parser.parse_args()
    header = ["seeds", "settings", "of the seeds", "next", "any", "next, noisy", "any, noisy"]
    rows = []
    for count in SETTINGS:
        for seeds in SEEDS:
            for name, correlation in DESIGNS.items():
                figures = []
                for noisy in (False, True):
                    rng = np.random.default_rng(0)
                    claims = [
                        _claims(rng, count, seeds, correlation, noisy, 0.0)
                        for _ in range(options.sweeps)
                    ]
                    figures += [f"{rate:.1%}" for rate in np.mean(claims, axis=0)]
                rng = np.random.default_rng(0)
                found = [
                    _claims(rng, count, seeds, correlation, False, 6.0)[0]
                    for _ in range(options.sweeps)
                ]
                figures.append(f"{np.mean(found):.0%}")
                rows.append([str(seeds), str(count), name, *figures])
                print(" | ".join(rows[-1]), flush=True)
    table = markdown([*header, "power, 6 deviations"], rows, text=3)
    put_section(HERE / "README.md", "rates", f"{options.sweeps} sweeps for each figure.\n\n{table}")


def _claims(
    rng: np.random.Generator,
    count: int,
    seeds: int,
    correlation: float | None,
    noisy: bool,
    effect: float,
) -> tuple[bool, bool]:
    """Return whether the best is said to be better than the next, and than any setting."""
    shared = rng.normal(size=seeds)
    settings = []
    for index in range(count):
        noise = rng.normal(size=seeds)
        if correlation is not None:
            noise = correlation**0.5 * shared + (1 - correlation) ** 0.5 * noise
        scale = 10.0 if noisy and index == count - 1 else 1.0
        values = scale * noise + effect * (index > 0)
        names = range(seeds) if correlation is not None else range(index * seeds, 10**6)
        settings.append(dict(zip(names, values.tolist(), strict=False)))
    order = np.argsort([np.mean(list(setting.values())) for setting in settings])
    with mock.patch("lmlab.runs.statistics._range_p", return_value=0.0):  # intervals say it, faster
        tests = Comparisons(settings)
        found = [tests.difference(int(order[0]), int(other)) for other in order[1:]]
    claims = [d.low is not None and d.low > 0 for d in found]
    return claims[0], any(claims)


if __name__ == "__main__":
    main()
