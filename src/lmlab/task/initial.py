"""Where a new run starts: at fresh weights, or at those of another run (`init_from=`)."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from lmlab.config import load_yaml
from lmlab.errors import ConfigError, UserError
from lmlab.layout import CONFIG, TOKENIZER
from lmlab.runs.run import DATA, LINEAGE, Run, changed_data, read_json
from lmlab.task.base import Task
from lmlab.task.new_tokens import require_extension, with_new_rows
from lmlab.tokenizer import Tokenizer
from lmlab.training.checkpoint import read_checkpoint
from lmlab.training.loop import TrainingSetup
from lmlab.training.resume import load_optimizer, load_source, load_weights
from lmlab.training.state import TrainState


def initialize(setup: TrainingSetup, task: Task, total_steps: int, run: Run) -> TrainState:
    """Return the state of a run without a checkpoint, its weights loaded when it has a parent.

    Raises UserError for a checkpoint that does not fit, naming the parameter.
    """
    config = task.config
    if config.init_from is None:
        return TrainState()
    given = f"init_from={config.init_from}"
    values = read_checkpoint(config.init_from, setup.model.state_dict())
    parent = config.init_from.parents[1]
    known = Tokenizer.load(parent / TOKENIZER)
    require_extension(known, task.tokenizer, given)
    weights = task.adopted(values["model"], setup.model)
    added = task.tokenizer.vocab_size - known.vocab_size
    if added:
        if config.init_optimizer:
            raise ConfigError(
                "init_optimizer",
                f"the tokenizer has {added} special tokens more than that of {given}, which its "
                "optimizer does not know; use init_optimizer=false",
            )
        weights = with_new_rows(weights, setup.model, known.vocab_size, given)
    load_weights(setup.model, weights, given)
    state = TrainState()
    if config.init_optimizer:
        theirs, own = load_yaml(parent / CONFIG).optimizer.kind, config.optimizer.kind
        if theirs != own:
            raise ConfigError(
                "init_optimizer",
                f"the optimizer of {given} is {theirs}, not {own}; take the same, or "
                "init_optimizer=false",
            )
        state = _continued(setup, values, given, same=_is_same(task, parent))
        if state.step >= total_steps:
            raise UserError(
                f"{given} is at step {state.step:,}, and the budget ends at step {total_steps:,}; "
                "raise the budget, or take its weights alone with init_optimizer=false"
            )
    run.write_json(
        LINEAGE,
        {
            "parent": str(parent),
            "step": values["step"],
            "fingerprint": values["config_fingerprint"],
            "optimizer": config.init_optimizer,
        },
    )
    run.say(f"starting from step {values['step']} of {parent}")
    return state


def _is_same(task: Task, parent: Path) -> bool:
    """Whether a parent learnt and was evaluated as this task is, so that their losses compare."""
    ours, theirs = (config.identity() for config in (task.config, load_yaml(parent / CONFIG)))
    alike = all(ours[key] == theirs[key] for key in ("task", "model"))
    windows = [values["trainer"]["eval_windows"] for values in (ours, theirs)]
    path = parent / DATA
    if not alike or windows[0] != windows[1] or not path.exists():
        return False
    return not changed_data(read_json(path), task.data_record())


def _continued(
    setup: TrainingSetup, values: dict[str, Any], given: str, *, same: bool
) -> TrainState:
    """Load optimizer and scaler; hyperparameters stay those of this run.

    The state of the source, and the best and the lowest loss, are those of the parent if the task
    and its data are the same.
    """
    if values["optimizer"] is None:
        raise UserError(f"{given} was imported and has no optimizer; use init_optimizer=false")
    groups = setup.optimizer.param_groups
    own = [{k: v for k, v in group.items() if k != "params"} for group in groups]
    try:
        load_optimizer(setup.optimizer, values["optimizer"])
    except ValueError as error:
        problem = str(error).splitlines()[0]
        raise UserError(
            f"{given}: its optimizer does not fit ({problem}); use init_optimizer=false"
        ) from error
    for group, kept in zip(setup.optimizer.param_groups, own, strict=True):
        group.update(kept)
    if setup.scaler is not None and values["scaler"] is not None:
        vars(setup.scaler).update(values["scaler"])
    state = TrainState.from_checkpoint(values["progress"])
    if not same:
        return replace(state, evaluation={}, best=None, lowest=math.inf, rows_above=0)
    load_source(setup, values.get("source", []), given)
    return state
