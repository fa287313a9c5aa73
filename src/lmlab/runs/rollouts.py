"""rollouts.html: a page to read the responses that a policy was trained on."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmlab.files import atomic_write
from lmlab.runs.page import environment, plotly, visible
from lmlab.runs.read import RunRecord
from lmlab.runs.run import ROLLOUTS

PAGE = "rollouts.html"
MOST = 200
"""Rollouts on the page; of more, evenly spaced ones are shown."""
NOTABLE = 0.05
"""How much the reward must rise, and accuracy fall, to be pointed out."""


@dataclass(frozen=True)
class Opposed:
    """A reward that rose while accuracy fell."""

    reward: tuple[float, float]
    accuracy: tuple[float, float]


def write_rollout_page(run: RunRecord) -> Path | None:
    """Write `rollouts.html` of a run and return its path; None for a run without rollouts."""
    records = list(_records(run.directory / ROLLOUTS))
    if not records:
        return None
    path = run.directory / PAGE
    shown = [records[i * len(records) // MOST] for i in range(MOST)]
    if len(records) <= MOST:
        shown = records
    data = {
        "rollouts": [_visible(record) for record in shown],
        "curves": {
            name: dict(zip(("x", "y"), run.series(key), strict=True))
            for name, key in (("reward", "train/reward"), ("accuracy", "val/accuracy"))
        },
    }
    page = (
        environment()
        .get_template("rollouts.html.j2")
        .render(
            run=run,
            data=data,
            opposed=opposed(run),
            recorded=len(records),
            plotly=plotly(),
        )
    )
    with atomic_write(path) as file:
        file.write(page)
    return path


def opposed(run: RunRecord) -> Opposed | None:
    """Return how reward and accuracy moved, if the one rose while the other fell.

    The reward is the mean of the first and of the last fifth of its rows. Accuracy is that on
    held-out problems, of the first and the last evaluation.
    """
    rewards, accuracies = run.series("train/reward")[1], run.series("val/accuracy")[1]
    if len(rewards) < 2 or len(accuracies) < 2:
        return None
    fifth = -(-len(rewards) // 5)
    before, after = (sum(part) / fifth for part in (rewards[:fifth], rewards[-fifth:]))
    if after - before < NOTABLE or accuracies[0] - accuracies[-1] < NOTABLE:
        return None
    return Opposed((before, after), (accuracies[0], accuracies[-1]))


def _records(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a file that need not exist; a line that is being written is left out."""
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict) and "groups" in record:
                yield record


def _visible(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record whose texts show their control characters."""
    groups = [
        group
        | {
            "prompt": visible(group["prompt"]),
            "truth": visible(group["truth"]),
            "responses": [
                response | {"tokens": [_token(token) for token in response["tokens"]]}
                for response in group["responses"]
            ],
        }
        for group in record["groups"]
    ]
    return dict(record) | {"groups": groups}


def _token(text: str) -> str:
    return visible(text).replace("\n", "\u21b5\n")
