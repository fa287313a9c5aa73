"""Pretraining: wires data, model, optimizer and run directory together and calls the loop."""

import itertools
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lmlab.accounting.account import account
from lmlab.accounting.text import short
from lmlab.config import RunConfig, difference, load_yaml
from lmlab.data import Prepared, prepare, require_context
from lmlab.data.batches import Batches, validation_starts
from lmlab.errors import UserError
from lmlab.files import remove_if_empty
from lmlab.generation.sampling import generate
from lmlab.model import Transformer, build
from lmlab.model.attention.backends import check_backends
from lmlab.optim import build_optimizer, build_schedule
from lmlab.runs.environment import environment
from lmlab.runs.logger import WandbLogger
from lmlab.runs.plot import write_loss_plot
from lmlab.runs.report import write_report
from lmlab.runs.run import ACCOUNT, CONFIG, RESULT, Onlooker, Run
from lmlab.task.config import PretrainConfig
from lmlab.task.summary import describe, summarise
from lmlab.training.budget import total_steps
from lmlab.training.checkpoint import Checkpoints
from lmlab.training.device import (
    autocast_for,
    keep_freed_memory,
    resolve_device,
    resolve_precision,
)
from lmlab.training.distributed import ALONE, World, join_world
from lmlab.training.evaluate import Evaluator
from lmlab.training.loop import Parts, train
from lmlab.training.objective import NextToken, fastest_chunk
from lmlab.training.progress import Outcome
from lmlab.training.step import LossScaler
from lmlab.training.throughput import data_sheet_peak, measured_peak
from lmlab.training.watch import LayerNorms, profiled


def run(config: RunConfig, directory: Path) -> None:
    """Train in the run directory, or go on where a run there stopped."""
    with join_world() as world:
        world.check_batch(config.trainer.batch_size)
        own, directory = directory, world.first(lambda: directory)
        if own != directory:  # named by another second; Hydra has made it
            remove_if_empty(own)
        with (Run if world.leads else Onlooker)(directory) as run:
            _run(config, run, world)


def _run(config: RunConfig, run: Run, world: World) -> None:
    if world.first(lambda: _is_over(run, config)):
        return
    device = resolve_device(config.trainer.device, world)
    check_backends(config.model, device)
    with world.leader_first():
        prepared = prepare(config.data, config.tokenizer, progress=world.leads)
    if prepared.reused:
        run.say(f"reusing the prepared data in {prepared.directory}")
    require_context(prepared, config.model.context_length)
    xz = {"xz_bits_per_byte": prepared.meta.xz_bits_per_byte}
    run.begin(config.to_yaml(), environment(_device_name(device, world)) | xz)
    logger = None
    if config.logger.kind == "wandb" and world.leads:
        logger = WandbLogger(config.logger, run.directory, config.name, config.identity())
        run.add_logger(logger.log)
    try:
        with run.stopping_on_signals():
            outcome, facts = _train(config, prepared, device, run, world)
    finally:
        if logger is not None:
            logger.finish()
    if outcome.status == "stopped":
        run.stop_signal = signal.Signals(outcome.stop_signal)  # another process may have got it
        if world.leads and run.stop_signal is signal.SIGINT:  # a cluster job has seconds to leave
            _write_pictures(run.directory)
        run.say(f"stopped after step {outcome.progress.step}; continue with:")
        run.say(f"  python train.py resume={run.directory}")
        sys.exit(128 + outcome.stop_signal)
    if world.leads:
        _finish(config, run, outcome, facts | xz)


def _finish(config: RunConfig, run: Run, outcome: Outcome, facts: dict[str, Any]) -> None:
    result = facts | {
        "status": outcome.status,
        "steps": outcome.progress.step,
        "val_loss": outcome.progress.val_loss,
        "val_bits_per_byte": outcome.progress.val_bits_per_byte,
        "best_val_loss": outcome.progress.best_val_loss,
        "tokens": outcome.progress.tokens,
        "seconds": outcome.progress.seconds,
        "tokens_per_second": outcome.tokens_per_second,
        "flops": outcome.progress.tokens * facts["flops_per_token"],
        "config_fingerprint": config.fingerprint(),
    }
    run.write_json(RESULT, result)
    report, plot = _write_pictures(run.directory)
    print(summarise(result, run.directory, report, plot))


def _is_over(run: Run, config: RunConfig) -> bool:
    """Whether the directory holds this run's result already; raises when it is another run's."""
    saved = run.directory / CONFIG
    if saved.exists():
        changes = difference(load_yaml(saved), config)
        if changes:
            raise UserError(
                f"{run.directory} was started with another configuration ({changes}); "
                "continue it with its own, or start in another directory"
            )
    elif config.resume is not None:
        raise UserError(f"{run.directory} is not a run directory: it has no {CONFIG}")
    result = run.result()
    if result is not None:
        run.say(f"{run.directory} has {result['status']} already (loss {result['val_loss']})")
    return result is not None


def _train(
    config: RunConfig, prepared: Prepared, device: torch.device, run: Run, world: World
) -> tuple[Outcome, dict[str, Any]]:
    trainer, context_length = config.trainer, config.model.context_length
    if trainer.num_threads is not None:
        torch.set_num_threads(trainer.num_threads)
    torch.autograd.set_detect_anomaly(trainer.detect_anomaly)
    torch.set_float32_matmul_precision("high")  # TF32 on CUDA
    keep_freed_memory()
    torch.manual_seed(config.seed)

    vocab_size = prepared.tokenizer.vocab_size
    precision = resolve_precision(trainer.precision, device)
    checkpointed = trainer.checkpoint_activations
    costs = account(config.model, config.optimizer, vocab_size, precision, checkpointed)
    parameters, flops_per_token = costs.parameters, costs.flops_per_token
    run.write_json(ACCOUNT, costs.to_dict())
    steps = total_steps(
        config.budget, trainer.batch_size * context_length, parameters, flops_per_token
    )
    model = build(config.model, vocab_size).to(device)
    compiled = trainer.compile is True or (trainer.compile == "auto" and device.type == "cuda")
    model.checkpoint_activations = checkpointed
    norms = LayerNorms(model) if trainer.watch_norms else None
    settings = config.task.objective
    chunk_tokens = settings.chunk_tokens
    if chunk_tokens == "auto":
        chunk_tokens = fastest_chunk(device)
    objective: Any = NextToken(
        model,
        z_loss=settings.z_loss,
        label_smoothing=settings.label_smoothing,
        chunk_tokens=chunk_tokens,
    )
    objective = world.wrap(objective, device)
    if compiled:
        backend = "aot_eager" if device.type == "mps" else "inductor"
        objective = torch.compile(objective, backend=backend)
    parts = Parts(
        model=model,
        objective=objective,
        optimizer=build_optimizer(config.optimizer, model),
        schedule=build_schedule(config.schedule, config.optimizer.lr, steps),
        batches=Batches(prepared.train, trainer.batch_size, context_length, config.seed),
        evaluate=Watch(config, prepared, model, objective, device, precision, run, world),
        autocast=autocast_for(precision, device),
        device=device,
        flops_per_token=flops_per_token,
        peaks=_peaks(device, precision, world),
        seed=config.seed,
        fingerprint=config.fingerprint(),
        world=world,
        scaler=LossScaler() if precision == "fp16" else None,
        watch=(lambda: model.metrics() | norms()) if norms is not None else model.metrics,
    )
    tokens = steps * trainer.batch_size * context_length
    run.say(describe(parameters, vocab_size, steps, tokens, flops_per_token, device, precision))
    run.say(short(costs))
    checkpoints = Checkpoints(run.directory / "checkpoints", trainer.keep_checkpoints)
    watched_steps = trainer.profile_steps if world.leads else None
    with profiled(watched_steps, run.directory, run.say) as profile_step:
        parts = replace(parts, profile_step=profile_step)
        outcome = train(parts, steps, checkpoints, run, trainer)
    return outcome, {"parameters": parameters, "flops_per_token": flops_per_token}


class Watch:
    """Evaluates the model on validation text, and lets it write some."""

    def __init__(
        self,
        config: RunConfig,
        prepared: Prepared,
        model: Transformer,
        objective: Any,
        device: torch.device,
        precision: str,
        run: Run,
        world: World,
    ) -> None:
        trainer, context_length = config.trainer, config.model.context_length
        assert isinstance(config.task, PretrainConfig)
        self.settings, self.seed, self.run = config.task.sample, config.seed, run
        self.world = world
        self.tokenizer, self.device = prepared.tokenizer, device
        self.model, self.objective = model, objective  # windows of many lengths do not compile
        self.autocast = autocast_for(precision, device)
        starts = validation_starts(prepared.val, context_length, trainer.eval_windows)
        lengths = np.zeros(model.vocab_size, dtype=np.int64)  # padding rows stand for no bytes
        lengths[: self.tokenizer.vocab_size] = self.tokenizer.byte_lengths()
        batch_size = trainer.micro_batch_size or trainer.batch_size
        self.evaluator = Evaluator(prepared.val, starts, context_length, lengths, batch_size, world)

    def __call__(self, step: int) -> dict[str, float] | None:
        """Return the validation metrics, and append a sample to the run's.

        None, in all processes, when the run is asked to stop meanwhile.
        """
        metrics = self.evaluator(self.objective, self.autocast, self.device, self._stops)
        if metrics is None or not self.settings.tokens:
            return metrics
        text = self.write(step) if self.world.leads else ""
        stopped = self.world.maximum(text is None)
        if stopped or text is None:
            return None
        self.run.sample(step, text)
        return metrics

    def write(self, step: int) -> str | None:
        """Return text that depends on the weights, the seed and the step alone; None if stopped."""
        end = self.tokenizer.special_tokens["<|endoftext|>"]
        tokens = self.tokenizer.encode(self.settings.prompt or "")
        self.model.eval()
        new = generate(
            self.model,
            tokens or [end],
            self.settings.tokens,
            context_length=self.model.context_length,
            stop=end,
            temperature=self.settings.temperature,
            top_p=self.settings.top_p,
            vocab_size=self.tokenizer.vocab_size,
            generator=torch.Generator().manual_seed(self.seed * 1_000_003 + step),
            device=self.device,
            new_cache=self.model.new_cache,
        )
        tokens += itertools.takewhile(lambda _: not self._stops(), new)
        self.model.train()
        return None if self._stops() else self.tokenizer.decode(tokens)

    def _stops(self) -> bool:
        return self.run.stop_signal is not None


def _write_pictures(directory: Path) -> tuple[Path, Path]:
    return write_report(directory), write_loss_plot(directory)


def _peaks(device: torch.device, precision: str, world: World) -> dict[str, float]:
    with world.leader_first():  # who measures alone is not in the others' way
        peaks = {"mfu": measured_peak(device, precision)}
    data_sheet = data_sheet_peak(device)
    if data_sheet is not None and precision != "fp32":
        peaks["mfu_data_sheet"] = data_sheet
    return {name: peak * world.size for name, peak in peaks.items()}


def _device_name(device: torch.device, world: World) -> str:
    if world.size > 1:
        return f"{world.size} x {_device_name(device, ALONE)}"
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return str(device)
