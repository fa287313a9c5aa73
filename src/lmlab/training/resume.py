"""What a checkpoint of the loop holds, and how a run continues from one."""

from typing import TYPE_CHECKING, Any

import torch

from lmlab.errors import UserError
from lmlab.training.checkpoint import Checkpoints, is_sharded
from lmlab.training.state import TrainState

if TYPE_CHECKING:
    from lmlab.training.loop import RunLog, TrainingSetup


def snapshot(setup: "TrainingSetup", state: TrainState, log: "RunLog") -> dict[str, Any]:
    """Return what a checkpoint holds; all processes must call it."""
    source = setup.source.state_dict()
    weights, names = dict[str, torch.Tensor](), dict[int, str]()
    for name, value in setup.model.state_dict(keep_vars=True).items():
        first = names.setdefault(id(value), name)
        # Tied weights stay one tensor.
        weights[name] = value.detach() if first == name else weights[first]
    optimizer = setup.optimizer.state_dict()
    for group, saved in zip(setup.optimizer.param_groups, optimizer["param_groups"], strict=True):
        saved["param_names"] = [names[id(parameter)] for parameter in group["params"]]
    return {
        "step": state.step,
        "config_fingerprint": setup.fingerprint,
        "model": weights,
        "optimizer": optimizer,
        "scaler": vars(setup.scaler).copy() if setup.scaler else None,
        "source": setup.runtime.distributed.gather(source) if source else [],
        "progress": vars(state).copy(),
        "files": log.position(),
    }


def resume(setup: "TrainingSetup", checkpoints: Checkpoints, log: "RunLog") -> TrainState | None:
    """Load the newest sound checkpoint into the setup, and return where the run is; None: nowhere.

    Raises UserError for a checkpoint of another configuration.
    """
    distributed = setup.runtime.distributed
    if distributed.is_main_process:
        checkpoints.clean()
    distributed.barrier()
    values, warnings = checkpoints.load(setup.model.state_dict())
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
        if warnings or any(log.position().values()):
            log.say(f"{checkpoints.folder} has no checkpoint to continue from: starting at step 0")
        log.rewind({})
        return None
    given = f"the checkpoint of step {values['step']} in {checkpoints.folder}"
    load_weights(setup.model, values["model"], given)
    load_optimizer(setup.optimizer, values["optimizer"])
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
    model.load_state_dict({name: shard(weights[name], own[name]) for name in own})


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load an optimizer's state, sharded as its parameters are; ValueError: it does not fit."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    saved = dict(state["state"])
    for number, parameter in enumerate(parameters):
        if number in saved:
            slots = saved[number].items()
            saved[number] = {slot: shard(value, parameter) for slot, value in slots}
    optimizer.load_state_dict(state | {"state": saved})


def shard(value: Any, own: torch.Tensor) -> Any:
    """Return a whole tensor spread over the processes as `own` is; anything else as it is."""
    if not is_sharded({"own": own}):
        return value
    from lmlab.training.sharded_checkpoint import fitted

    return fitted(value, own)
