"""`lmlab runs` and `lmlab sweep status | cancel | resume`: watching and controlling runs."""

import argparse
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmlab.errors import ConfigError, UserError

if TYPE_CHECKING:
    from lmlab.config import RunConfig

PAUSE = 2.0
CLEAR = "\x1b[H\x1b[2J"


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `runs` and `sweep` to the `lmlab` command."""
    runs = commands.add_parser(
        "runs",
        help="list runs with their state and progress",
        description="List the runs below a folder with their state, progress and losses.",
    )
    runs.add_argument("directory", nargs="?", type=Path, default=Path("runs"), metavar="DIR")
    runs.add_argument("--watch", action="store_true", help="refresh until all have exited")
    runs.set_defaults(run=show)

    sweep = commands.add_parser("sweep", help="control a sweep: status, cancel, resume")
    actions = sweep.add_subparsers(metavar="ACTION", required=True)
    for name, action, text in (
        ("status", show, "list the runs of a sweep"),
        ("cancel", cancel, "cancel queued and running runs; running ones save first"),
        ("resume", resume, "submit the runs again that are not finished, queued or running"),
    ):
        parser = actions.add_parser(name, help=text, description=f"{text.capitalize()}.")
        parser.add_argument("directory", type=Path, metavar="DIR", help="runs/sweeps/NAME")
        if name == "status":
            parser.add_argument(
                "--watch", action="store_true", help="refresh until all have exited"
            )
        if name == "resume":
            parser.add_argument(
                "overrides",
                nargs="*",
                default=[],
                metavar="slurm.KEY=VALUE",
                help="other resources",
            )
            parser.add_argument(
                "--parallel",
                type=_count,
                default=2,
                help="jobs at a time, without Slurm (default: 2)",
            )
        parser.set_defaults(run=action)


def _count(text: str) -> int:
    """Return a number of at least 1; argparse adds the name of the argument to the error."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be an integer > 0, got '{text}'")
    return int(text)


def show(options: argparse.Namespace) -> None:
    """Print the table of runs, with --watch until none is active."""
    from lmlab.cluster.run_table import table

    fixed = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    while True:
        width = None if fixed else shutil.get_terminal_size().columns
        text, active = table(_runs(options.directory), options.directory, width)
        watching = options.watch and active
        print((CLEAR if options.watch and sys.stdout.isatty() else "") + text, flush=True)
        if not watching:
            return
        time.sleep(PAUSE)


def cancel(options: argparse.Namespace) -> None:
    """Cancel the jobs of a sweep that are queued or running."""
    from lmlab.cluster.cancel import cancel_runs

    runs = _runs(options.directory)
    cancelled, unreached = cancel_runs(runs)
    if cancelled or not unreached:
        print(f"cancelled {cancelled} of {len(runs)} runs" if cancelled else "nothing to cancel")
    if unreached:
        raise UserError("; ".join(unreached))


def resume(options: argparse.Namespace) -> None:
    """Submit the unfinished runs of a sweep again, where they were submitted before."""
    from lmlab.cluster.launch_processes import run_in_processes
    from lmlab.cluster.launch_slurm import submit_to_slurm
    from lmlab.cluster.records import SUBMISSION, read_record
    from lmlab.cluster.submission import Job
    from lmlab.config import load_yaml
    from lmlab.refused import READ_HERE, check_slurm

    runs = _runs(options.directory)
    records = [read_record(path / SUBMISSION) for path in runs]
    clusters = {record["cluster"] for record in records if record}
    if len(clusters) != 1:
        problem = "was not submitted" if not clusters else "is partly on Slurm, partly local"
        raise UserError(
            f"{options.directory} {problem}; start it with train.py -m, which skips finished runs"
        )
    jobs = []
    for path in runs:
        config = _changed(load_yaml(path / "config.yaml"), options.overrides)
        jobs.append(Job(path.absolute(), config, path.name))
    on_slurm = clusters == {"slurm"}
    if not on_slurm:
        check_slurm(options.overrides, READ_HERE)
    cwd = next(record["cwd"] for record in records if record)
    if not Path(cwd).is_dir():
        raise UserError(f"the working directory of {options.directory} does not exist: {cwd}")
    os.chdir(cwd)  # paths in configurations are relative to it
    submission = submit_to_slurm(jobs) if on_slurm else run_in_processes(jobs, options.parallel)
    for name, job in submission.submitted.items():
        print(f"  {name}: {job.settings}")
    print(submission.summary())


def _changed(config: "RunConfig", overrides: Sequence[str]) -> "RunConfig":
    """Return the configuration with the overrides of `slurm`."""
    import yaml

    from lmlab.config import load

    values: Any = config.model_dump(mode="json")
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key.startswith("slurm."):
            raise UserError(
                f"'{override}' is not slurm.KEY=VALUE; other keys of a run cannot change"
            )
        node = values
        *parents, last = key.split(".")
        for parent in parents:
            node = node.get(parent)
            if not isinstance(node, dict):
                raise ConfigError(key, "unknown key")
        try:
            node[last] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(key, f"cannot be read as YAML: {value}") from error
    return load(values)


def _runs(directory: Path) -> list[Path]:
    from lmlab.runs.read import find_runs

    if not directory.is_dir():
        raise UserError(f"{directory} is not a folder; name one that holds runs, such as runs/")
    runs = find_runs(directory)
    if not runs:
        raise UserError(f"there are no runs in {directory}")
    return runs
