"""Tasks of lm-evaluation-harness, by name or as YAML files."""

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

from lmlab.errors import UserError
from lmlab.evaluation.estimate import Estimate
from lmlab.evaluation.harness import LmlabLM
from lmlab.evaluation.plot import Panel
from lmlab.evaluation.results import Report, Row

BOOTSTRAPS = 1000
"""Resamples for the error of metrics that have no formula."""
NOT_METRICS = ("alias", "name", "sample_len", "sample_count")


class Tasks:
    """Tasks that can be run on several models; raises UserError for what cannot be loaded."""

    def __init__(
        self,
        names: Sequence[str],
        *,
        include_path: Path | None = None,
        num_fewshot: int | None = None,
        limit: int | None = None,
    ) -> None:
        if include_path is not None and not include_path.is_dir():
            raise UserError(f"--include-path {include_path}: is not a folder")
        self._manager = TaskManager(
            include_path=None if include_path is None else str(include_path)
        )
        self._names = [self._name(name) for name in names]
        self._num_fewshot, self._limit = num_fewshot, limit
        for name in self._names:
            try:
                self._manager.load([name])
            except Exception as error:  # a task's YAML, code and data fail in many ways
                reason = " ".join(str(error).split()) or type(error).__name__
                raise UserError(f"--tasks {name}: cannot be loaded: {reason:.300}") from error

    def _name(self, name: str) -> str:
        if name.endswith((".yaml", ".yml")):
            path = Path(name).expanduser()
            if not path.is_file():
                raise UserError(f"--tasks {name}: the file does not exist")
            return str(path.absolute())
        known = self._manager.all_tasks
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else "give a YAML file"
            raise UserError(f"--tasks {name}: lm_eval has no such task; {hint}")
        return name

    def run(self, run: str, model: LmlabLM) -> list[Row]:
        """Return a row for each task and metric; `run` is the name in the rows."""
        results: Any = simple_evaluate(
            model=model,
            tasks=list(self._names),
            num_fewshot=self._num_fewshot,
            limit=self._limit,
            task_manager=self._manager,
            bootstrap_iters=BOOTSTRAPS,
            log_samples=False,
        )
        return [
            row for task, found in results["results"].items() for row in _rows(run, task, found)
        ]


def _rows(run: str, task: str, found: dict[str, Any]) -> Iterator[Row]:
    for key, value in found.items():
        metric, _, filter_ = key.partition(",")
        if metric in NOT_METRICS or metric.endswith("_stderr") or not _is_number(value):
            continue
        error = found.get(f"{metric}_stderr,{filter_}")
        row: Row = {
            "task": str(found.get("alias", task)).strip(" -"),
            "metric": metric if filter_ in ("", "none") else f"{metric} ({filter_})",
            "run": run,
            "value": float(value),
            "standard_error": float(error) if _is_number(error) else None,
        }
        yield row


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def report_tasks(rows: Sequence[Row]) -> Report:
    """Return the report on the tasks: rows of one metric follow one another."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((str(row["task"]), str(row["metric"])), []).append(row)
    ordered = [row for group in groups.values() for row in group]
    cells = []
    for row in ordered:
        error = row["standard_error"]
        shown = f"{row['value']:.4f}" + ("" if error is None else f" ± {error:.4f}")
        cells.append([str(row["task"]), str(row["metric"]), str(row["run"]), shown])
    panels = [
        Panel(task, metric, [(str(row["run"]), _estimate(row)) for row in group])
        for (task, metric), group in groups.items()
    ]
    notes = ["±: standard error, as lm_eval computes it."]
    return Report(ordered, ["task", "metric", "run", "value"], cells, 3, notes, panels)


def _estimate(row: Row) -> Estimate:
    error = row["standard_error"]
    half = None if error is None else 1.96 * float(error)
    return Estimate(float(row["value"] or 0), None if error is None else float(error), half)
