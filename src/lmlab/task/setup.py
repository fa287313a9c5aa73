"""From a task to a training setup: model, optimizer, schedule, costs, hooks; and training it."""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lmlab.accounting.costs import count_costs
from lmlab.accounting.fit import require_memory
from lmlab.accounting.text import short
from lmlab.config import RunConfig, stored_fingerprints
from lmlab.layout import CHECKPOINTS, CONFIG, checkpoint_of, run_of
from lmlab.model import Transformer
from lmlab.optim import build_optimizer, build_schedule
from lmlab.optim.schedule import schedule_warning
from lmlab.runs.run import ACCOUNT, Run
from lmlab.task.base import Task
from lmlab.task.initial import initialize
from lmlab.task.summary import describe
from lmlab.training.budget import total_steps
from lmlab.training.checkpoint import Checkpoints
from lmlab.training.device import keep_freed_memory
from lmlab.training.kernels import PRECISION_NAMES, set_precision, use_kernels
from lmlab.training.loop import Hook, TrainingSetup, train
from lmlab.training.runtime import Runtime
from lmlab.training.state import Outcome
from lmlab.training.step import LossScaler
from lmlab.training.throughput import Meter, data_sheet_peak, measured_peak
from lmlab.training.watch import LayerStats, profiled


def train_task(task: Task, run: Run, fingerprint: str) -> tuple[Outcome, dict[str, Any]]:
    """Train a prepared task in a run directory; returns how it ended, and the model's costs.

    `fingerprint` is that of the run's configuration as it was given, see `RunConfig.fingerprint`.
    """
    config, runtime = task.config, task.runtime
    trainer = config.trainer
    _configure_torch(config)
    vocab_size = task.tokenizer.vocab_size
    costs = count_costs(
        config.model,
        config.optimizer,
        vocab_size,
        runtime.precision,
        trainer.checkpoint_activations,
    )
    run.write_json(ACCOUNT, costs.to_dict())
    tokens_per_step = config.tokens_per_step()
    steps = total_steps(config.budget, tokens_per_step, costs.parameters, costs.flops_per_token)
    if trainer.check_memory:
        require_memory(
            costs,
            runtime.device,
            batch_size=trainer.batch_size,
            micro_batch_size=trainer.micro_batch_size,
            chunk_tokens=task.chunk_tokens(),
            steps=steps,
            rows=task.least_rows(steps),
            reference=bool(getattr(config.task, "kl", 0)),
            processes=runtime.distributed.data_size,
            division=runtime.strategy.division,
        )
    if runtime.strategy.sharded:  # no process can be sure to hold the whole model
        with torch.device("meta"):
            model = task.build_model()
    else:
        model = task.build_model().to(runtime.device)
    model.checkpoint_activations = trainer.checkpoint_activations
    hooks: list[Hook] = [partial(_model_metrics, model)]
    if trainer.watch_norms:
        hooks.append(LayerStats(model))
    set_precision(model, runtime.precision)
    objective = task.build_objective(model)
    if chosen := use_kernels(objective, trainer.kernels, runtime.device):
        run.say(chosen)
    wrapped: Any = runtime.strategy.wrap(objective, model)
    if trainer.compile is True or (trainer.compile == "auto" and runtime.device.type == "cuda"):
        torch.compiler.reset()  # it stops compiling after eight models, those of earlier runs too
        backend = "aot_eager" if runtime.device.type == "mps" else "inductor"
        wrapped = torch.compile(wrapped, backend=backend)
    setup = TrainingSetup(
        model=model,
        objective=wrapped,
        weight=objective.weight,
        source=task.build_source(),
        optimizer=build_optimizer(
            config.optimizer, model, runtime.strategy.optimizer, config.model.width_multiplier
        ),
        schedule=build_schedule(config.schedule, config.optimizer.lr, steps),
        evaluate=task.build_evaluation(model, wrapped, run),
        criterion=task.criterion,
        runtime=runtime,
        meter=Meter(_peaks(runtime)),
        flops=task.batch_flops(),
        fingerprint=fingerprint,
        # Resumed runs used to save one that names their own copy of the tokenizer.
        earlier_fingerprints={*stored_fingerprints(run.directory / CONFIG), config.fingerprint()},
        scaler=LossScaler() if runtime.precision == "fp16" else None,
    )
    tokens = None if tokens_per_step is None else steps * tokens_per_step
    all_are_learnt = config.task.kind == "pretrain"  # what is not learnt saves its logits
    run.say(
        describe(
            costs.parameters,
            vocab_size,
            steps,
            tokens,
            None if tokens is None else tokens * costs.flops_per_token,
            all_are_learnt,
            runtime.device,
            PRECISION_NAMES.get(runtime.precision, runtime.precision),
        )
    )
    run.say(short(costs))
    if warning := schedule_warning(config.schedule, steps):
        run.say(warning)
    folder = run.directory / CHECKPOINTS
    checkpoints = Checkpoints(folder, trainer.keep_checkpoints, runtime.distributed)
    if config.resume is not None and run_of(config.resume) != config.resume:
        if runtime.distributed.is_main_process:
            checkpoints.go_back_to(checkpoint_of(config.resume))
        runtime.distributed.barrier()
    profiled_steps = trainer.profile_steps if runtime.distributed.is_main_process else None
    with profiled(profiled_steps, run.directory, run.say) as profile:
        setup = replace(setup, hooks=[*hooks, profile])
        outcome = train(
            setup,
            steps,
            checkpoints,
            run,
            trainer,
            start=lambda setup: initialize(setup, task, steps, run),
        )
    flops = outcome.state.flops
    other = 0.0 if outcome.status == "stopped" else task.other_flops()
    if flops is None and all_are_learnt:  # a checkpoint of an earlier version
        flops = outcome.state.tokens * costs.flops_per_token
    return outcome, {
        "parameters": costs.parameters,
        "flops_per_token": costs.flops_per_token,
        "flops": None if flops is None else flops + other,
    }


def _model_metrics(model: Transformer, logged: bool) -> dict[str, Tensor]:
    """Return what a step has shown of the model, if it is logged; the next step begins anew."""
    metrics = model.take_metrics()
    return metrics if logged else {}


def _configure_torch(config: RunConfig) -> None:
    if config.trainer.num_threads is not None:
        torch.set_num_threads(config.trainer.num_threads)
    torch.autograd.set_detect_anomaly(config.trainer.detect_anomaly)
    # On CUDA alone: torch.set_float32_matmul_precision also rounds the products of some CPUs.
    torch.backends.cuda.matmul.allow_tf32 = True
    keep_freed_memory()
    torch.manual_seed(config.seed)


def _peaks(runtime: Runtime) -> dict[str, float]:
    """Return the FLOP/s of all processes that MFU and `matmul_utilization` are shares of."""
    with runtime.distributed.main_process_first():  # one measures undisturbed by the others
        measured = measured_peak(runtime.device, runtime.precision)
    data_sheet = data_sheet_peak(runtime.device) if runtime.precision != "fp32" else None
    peaks = {"mfu": data_sheet or measured, "matmul_utilization": measured}
    return {name: peak * runtime.distributed.size for name, peak in peaks.items()}
