"""The journal of a plan: rounds and losses, published atomically after each run."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lmlab.errors import UserError
from lmlab.files import atomic_write
from lmlab.io.locks import held_alone
from lmlab.scaling.planner import Round, next_round
from lmlab.scaling.trial import Config, Space, Trial

JOURNAL, LOCK = "plan.json", ".lock"


@dataclass(frozen=True)
class Journal:
    """What a plan was asked, its rounds so far, and the losses of the runs that finished."""

    path: Path
    settings: Mapping[str, Any]
    """Budget, target, and where the runs are made."""
    rounds: tuple[Round, ...] = ()
    losses: Mapping[Config, float] = field(default_factory=dict)

    @property
    def trials(self) -> list[Trial]:
        """The runs that finished, in the order of the rounds."""
        configs = [config for round_ in self.rounds for config in round_.configs]
        return [Trial(c, self.losses[c]) for c in configs if c in self.losses]

    @property
    def spent(self) -> int:
        """FLOPs of the runs that finished."""
        return sum(config.train_flops for config in self.losses)

    def write(self) -> "Journal":
        """Publish the journal, and return it."""
        values = {
            **self.settings,
            "rounds": [
                {
                    "name": round_.name,
                    "runs": [c.to_dict() | {"loss": self.losses.get(c)} for c in round_.configs],
                }
                for round_ in self.rounds
            ],
        }
        with atomic_write(self.path) as file:
            json.dump(values, file, indent=1)
        return self

    def extend(self, round_: Round) -> "Journal":
        """Return the journal with a further round, published."""
        return replace(self, rounds=(*self.rounds, round_)).write()

    def record(self, config: Config, loss: float) -> "Journal":
        """Return the journal with a run's loss, published."""
        return replace(self, losses={**self.losses, config: loss}).write()


def plan_lock(folder: Path) -> AbstractContextManager[None]:
    """Keep other processes out of a plan; raises UserError when one carries it out.

    Each of two would write the journal without the losses of the other, and pay runs twice.
    """
    message = f"another process carries out the plan in {folder}; wait, or give another --folder"
    return held_alone(folder / LOCK, message)


def open_journal(
    folder: Path, settings: Mapping[str, Any], initial: Mapping[str, Any] | None = None
) -> Journal:
    """Return the journal in a folder, or a new one, which also keeps the `initial` values.

    Raises UserError for one of a plan with other settings.
    """
    path = folder / JOURNAL
    if not path.exists():
        return Journal(path, {**settings, **(initial or {})}).write()
    journal = read_journal(path)
    for name, value in settings.items():
        if journal.settings.get(name) != value:
            raise UserError(
                f"{path} is of a plan with {name}={journal.settings.get(name)}, not {value}; give "
                "the same, or another --folder"
            )
    return journal


def read_journal(path: Path) -> Journal:
    """Read a plan.json; raises UserError for another file."""
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8"))
        rounds, losses = [], {}
        for stored in values.pop("rounds"):
            configs = []
            for run in stored["runs"]:
                config = Config.from_dict(run)
                configs.append(config)
                if run["loss"] is not None:
                    losses[config] = float(run["loss"])
            rounds.append(Round(stored["name"], tuple(configs)))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not the journal of a plan: {error!r}") from error
    return Journal(path, values, tuple(rounds), losses)


Runner = Callable[[Sequence[Config]], Mapping[Config, float]]
"""Makes runs and returns their losses; it may return some of them, then it is called again."""


def carry_out(
    journal: Journal,
    space: Space,
    run: Runner,
    say: Callable[[str], None] = lambda line: None,
) -> Journal:
    """Make the rounds of a plan until its budget is used; return the journal.

    A round is published before its runs start and a loss as soon as it is known. A killed plan
    goes on with the runs that have no loss.
    """
    budget = journal.settings["budget"] - journal.settings.get("spent_before", 0)
    while True:
        open_runs = [c for r in journal.rounds for c in r.configs if c not in journal.losses]
        if open_runs:
            found = run(open_runs)
            if not found:
                raise UserError(
                    f"{len(open_runs)} runs of {journal.path} have no loss; start again"
                )
            for config, loss in found.items():
                journal = journal.record(config, loss)
            continue
        round_ = next_round(journal.rounds, journal.trials, space, budget)
        if round_ is None:
            return journal
        say(
            f"{round_.name}: {len(round_.configs)} runs, {round_.flops:.3g} FLOPs "
            f"({journal.spent:.3g} of {budget:.3g} spent)"
        )
        journal = journal.extend(round_)
