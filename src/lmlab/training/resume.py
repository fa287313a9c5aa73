"""What a checkpoint of the loop holds, and how a run continues from one."""

from typing import TYPE_CHECKING, Any

import torch

from lmlab.errors import UserError
from lmlab.training.checkpoint import Checkpoints
from lmlab.training.state import TrainState

if TYPE_CHECKING:
    from lmlab.training.loop import RunLog, TrainingSetup


def snapshot(setup: "TrainingSetup", state: TrainState, log: "RunLog") -> dict[str, Any]:
    """Return what a checkpoint holds; all processes must call it."""
    source = setup.source.state_dict()
    return {
        "step": state.step,
        "config_fingerprint": setup.fingerprint,
        "model": _whole(setup.model.state_dict()),
        "optimizer": _whole(setup.optimizer.state_dict()),
        "scaler": vars(setup.scaler).copy() if setup.scaler else None,
        "source": setup.runtime.distributed.gather(source) if source else [],
        "progress": vars(state).copy(),
        "files": log.position(),
    }


def _whole(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def resume(setup: "TrainingSetup", checkpoints: Checkpoints, log: "RunLog") -> TrainState | None:
    """Load the newest sound checkpoint into the setup, and return where the run is; None: nowhere.

    Raises UserError for a checkpoint of another configuration.
    """
    distributed = setup.runtime.distributed
    if distributed.is_main_process:
        checkpoints.clean()
    distributed.barrier()
    values, warnings = checkpoints.load()
    for warning in warnings:
        log.say(warning)
    accepted = {setup.fingerprint, *setup.earlier_fingerprints}
    if values is not None and values["config_fingerprint"] not in accepted:
        raise UserError(
            f"the checkpoint of step {values['step']} in {checkpoints.folder} was made with "
            "another configuration; remove it, or put the right one back"
        )
    if values is not None and values["optimizer"] is None:
        raise UserError(
            f"{checkpoints.folder.parent} was imported and has no optimizer to continue with; "
            f"start a new run with init_from={checkpoints.folder.parent}"
        )
    distributed.barrier()  # all have read
    if distributed.is_main_process:
        checkpoints.quarantine(after=-1 if values is None else values["step"])
    if values is None:
        log.rewind({})
        return None
    setup.model.load_state_dict(values["model"])
    setup.optimizer.load_state_dict(values["optimizer"])
    if setup.scaler is not None:
        vars(setup.scaler).update(values["scaler"])
    load_source(setup, values.get("source", []), f"resume={checkpoints.folder.parent}")
    log.rewind(values["files"])
    log.say(f"resuming after step {values['step']}")
    return TrainState.from_checkpoint(values["progress"])


def load_source(setup: "TrainingSetup", states: list[dict[str, Any]], given: str) -> None:
    """Give each process's source of batches its state; raises UserError for another number."""
    distributed = setup.runtime.distributed
    if not states:
        return
    if len(states) != distributed.size:
        raise UserError(
            f"{given} was saved by {len(states)} processes whose batches have a state, and cannot "
            f"continue with {distributed.size}; start as many"
        )
    setup.source.load_state_dict(states[distributed.rank])


def load_weights(model: torch.nn.Module, weights: dict[str, torch.Tensor], given: str) -> None:
    """Load a model's weights; raises UserError naming the first parameter that does not fit."""
    own = model.state_dict()
    for name in (*own, *weights):
        if name not in weights:
            raise UserError(f"{given} has no parameter '{name}', which the configured model has")
        if name not in own:
            raise UserError(f"{given} has a parameter '{name}', which the configured model lacks")
        if own[name].shape != weights[name].shape:
            there, here = (tuple(part[name].shape) for part in (weights, own))
            raise UserError(
                f"{given}: parameter '{name}' has the shape {there} there and {here} in the "
                "configured model; leave out the keys of model. and tokenizer. that change it"
            )
    model.load_state_dict(weights)
