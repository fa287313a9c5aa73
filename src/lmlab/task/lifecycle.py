"""The life of a run, the same for every task: begin or resume, train, publish the result."""

import shlex
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lmlab.config import RunConfig, changed_settings, difference, load_yaml
from lmlab.errors import UserError
from lmlab.files import remove_if_empty
from lmlab.layout import CONFIG, TOKENIZER
from lmlab.model import build as build_model
from lmlab.model.attention.choice import check_backends
from lmlab.parallel import build_strategy, model_parallel_size
from lmlab.runs.environment import environment
from lmlab.runs.logger import WandbLogger
from lmlab.runs.plot import write_loss_plot
from lmlab.runs.report import write_report
from lmlab.runs.run import RESULT, NullRun, Run
from lmlab.task.agreement import require_agreement
from lmlab.task.base import Task
from lmlab.task.setup import train_task
from lmlab.task.summary import summarise
from lmlab.training.device import resolve_device, resolve_precision
from lmlab.training.distributed import DistributedContext, init_distributed
from lmlab.training.kernels import check_kernels, check_widths
from lmlab.training.runtime import Runtime
from lmlab.training.state import Outcome

Build = Callable[[RunConfig, Runtime], Task]


def run_task(config: RunConfig, directory: Path, build: Build) -> None:
    """Train in the run directory, or resume the run that stopped there."""
    with init_distributed() as distributed:
        require_agreement(config, distributed)
        group = model_parallel_size(config.parallel, distributed.size)
        distributed = replace(distributed, model_parallel=group)
        distributed.check_batch(config.trainer.batch_size)
        own, directory = directory, distributed.from_main(lambda: directory)
        if own != directory:  # a timestamp of another second; Hydra has made the directory
            remove_if_empty(own)
        with (Run if distributed.is_main_process else NullRun)(directory) as run:
            _run(config, run, distributed, build)


def _run(config: RunConfig, run: Run, distributed: DistributedContext, build: Build) -> None:
    finished, complete = distributed.from_main(
        lambda: (_is_finished(run, config), run.has_tokenizer())
    )
    if finished and complete:
        return
    device = resolve_device(config.trainer.device, distributed)
    precision = resolve_precision(config.trainer.precision, device)
    check_backends(config.model, device, precision)
    check_kernels(config.trainer.kernels, device)
    check_widths(config.model, precision)
    strategy = build_strategy(config.parallel, distributed.size, device, precision)
    strategy.check(build_model(config.model, config.model.vocab_size or 1, device="meta"))
    runtime = Runtime(device, precision, config.seed, distributed, strategy)
    task = build(_with_own_tokenizer(config, run), runtime)
    with distributed.main_process_first():
        task.prepare(run.say)
    run.keep_data(task.tokenizer, task.data_record())
    if finished:  # by version 0.1, which kept no tokenizer
        return
    noted = environment(_device_name(device, distributed)) | task.facts()
    saved = run.directory / CONFIG
    if saved.exists() and (settings := changed_settings(load_yaml(saved), config)):
        noted["changed_settings"] = settings
    run.begin(config.to_yaml(), noted)
    logger = None
    if config.logger.kind == "wandb" and distributed.is_main_process:
        logger = WandbLogger(config.logger, run.directory, config.name, config.identity())
        run.add_logger(logger.log)
    try:
        with run.stopping_on_signals():
            outcome, costs = train_task(task, run, config.fingerprint())
    finally:
        if logger is not None:
            logger.finish()
    if outcome.status == "stopped":
        _exit_stopped(run, outcome, distributed)
    if distributed.is_main_process:
        _finish(task, run, outcome, costs, config.fingerprint())


def _with_own_tokenizer(config: RunConfig, run: Run) -> RunConfig:
    """Let a run that took its tokenizer from another run read its own copy."""
    if config.tokenizer.kind != "saved" or not run.has_tokenizer():
        return config
    own = config.tokenizer.model_copy(update={"path": run.directory / TOKENIZER})
    return config.model_copy(update={"tokenizer": own})


def _exit_stopped(run: Run, outcome: Outcome, distributed: DistributedContext) -> None:
    run.stop_signal = signal.Signals(outcome.stop_signal)  # another process may have received it
    if distributed.is_main_process and run.stop_signal is signal.SIGINT:
        _write_pictures(run.directory)  # a cluster job has no time for them
    run.say(f"stopped after step {outcome.state.step}; continue with:")
    run.say(f"  python train.py resume={shlex.quote(str(run.directory))}")
    sys.exit(128 + outcome.stop_signal)


def _finish(
    task: Task, run: Run, outcome: Outcome, costs: dict[str, Any], fingerprint: str
) -> None:
    state, metric = outcome.state, task.criterion.metric
    measured = {metric: None} | state.evaluation | {f"best_{metric}": state.best}
    result = costs | {
        "status": outcome.status,
        "steps": state.step,
        "metric": metric.replace("/", "_"),
        "maximize": task.criterion.maximize,
        **{name.replace("/", "_"): value for name, value in measured.items()},
        "tokens": state.tokens,
        "seconds": state.seconds,
        "tokens_per_second": outcome.tokens_per_second,
        "config_fingerprint": fingerprint,
        **task.facts(),
    }
    run.write_json(RESULT, result)
    report, plot = _write_pictures(run.directory)
    print(summarise(result, task.summary(result, run.directory), report, plot))


def _is_finished(run: Run, config: RunConfig) -> bool:
    """Whether the directory has the result of this run; raises UserError for another run's."""
    saved = run.directory / CONFIG
    result = run.result()
    if saved.exists():
        changes = difference(load_yaml(saved), config)
        if changes:
            raise UserError(_refused(run.directory, changes, result))
    elif config.resume is not None:
        raise UserError(f"{run.directory} is not a run directory: it has no {CONFIG}")
    if result is not None:
        run.say(f"{run.directory} is {result['status']} already, after {result['steps']} steps")
    return result is not None


def _refused(directory: Path, changes: str, result: dict[str, Any] | None) -> str:
    """Return why a run cannot continue with another configuration, and the two ways out."""
    if result is not None and all(part.startswith("budget.") for part in changes.split(", ")):
        return (
            f"{directory} finished after {result['steps']} steps ({changes}); to train longer, use "
            f"init_from={directory} init_optimizer=true, which continues its optimizer and steps, "
            f"or init_from={directory}, which takes its weights and starts a new schedule"
        )
    return (
        f"{directory} was started with another configuration ({changes}), which changes its "
        f"result; resume it without these keys, or branch from it with init_from={directory}"
    )


def _write_pictures(directory: Path) -> tuple[Path, Path]:
    return write_report(directory), write_loss_plot(directory)


def _device_name(device: torch.device, distributed: DistributedContext) -> str:
    name = str(device)
    if device.type == "cuda":
        name = f"{device} ({torch.cuda.get_device_name(device)})"
    return name if distributed.size == 1 else f"{distributed.size} x {name}"
