"""A step of GRPO beside TRL's: same shape, same prompts, same reward, one process.

    pip install 'lmlab[trl]'
    python benchmarks/alignment.py [--rounds 3] [--steps 6] [--threads 2]

A step is one rollout of 32 prompts with 8 responses each and one update, in float32. Both begin at
random weights, from which responses rarely end early: they are equally long. The contenders are
interleaved; the figures are medians over steps, without the first of each round, and the ratio is
the median of the rounds' ratios.
"""

import argparse
import itertools
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from lmlab.alignment.collecting import Collector
from lmlab.alignment.methods import GroupRelative
from lmlab.alignment.policy_gradient import PolicyGradient, PolicyGradientSettings
from lmlab.alignment.problems import open_problems
from lmlab.alignment.problems.config import AdditionConfig
from lmlab.alignment.problems.problem import Problem
from lmlab.alignment.rewards import Reward
from lmlab.alignment.rewards.arithmetic import arithmetic
from lmlab.alignment.rollouts import Decoding
from lmlab.alignment.source import RolloutSource
from lmlab.errors import UserError
from lmlab.hydra_app import compose
from lmlab.model import build
from lmlab.optim import build_optimizer
from lmlab.tokenizer.bpe import byte_tokenizer
from lmlab.training.chunking import fastest_chunk
from lmlab.training.device import keep_freed_memory
from lmlab.training.runtime import Runtime
from lmlab.training.step import optimize_step

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.tables import machine, markdown

END = "<|endoftext|>"
PROMPTS, SAMPLES, TOKENS, CONTEXT = 32, 8, 8, 32
LR = 1e-4


def judge(problems: Any, responses: Any) -> list[Reward]:
    """Return the rewards of responses."""
    return [arithmetic(p.prompt, r, p.truth) for p, r in zip(problems, responses, strict=True)]


def ours(problems: tuple[Problem, ...], steps: int, seed: int) -> list[float]:
    """Seconds of each step of lmlab."""
    config = compose("model=tiny", f"model.context_length={CONTEXT}", "optimizer=adamw", f"lr={LR}")
    tokenizer = byte_tokenizer([END])
    torch.manual_seed(seed)
    model = build(config.model, tokenizer.vocab_size)
    runtime = Runtime(torch.device("cpu"), seed=seed)
    chunk = fastest_chunk(runtime.device)
    decoding = Decoding(TOKENS, max_batch=PROMPTS * SAMPLES, dtype="fp32")
    collector = Collector(
        model,
        tokenizer,
        problems,
        judge,
        decoding,
        runtime,
        prompts=PROMPTS,
        samples=SAMPLES,
        chunk_tokens=chunk,
        single_step=True,
        measured_every=10,
    )
    method = GroupRelative("grpo_clip", SAMPLES, divide_by_std=True)
    source = RolloutSource(collector, method, PROMPTS * SAMPLES, 1)
    settings = PolicyGradientSettings("grpo_clip", "sequence", chunk_tokens=chunk)
    objective = PolicyGradient(model, settings)
    optimizer = build_optimizer(config.optimizer, model)
    seconds = []
    for step in range(steps):
        began = time.perf_counter()
        batch = source(step)
        weight = objective.weight(*batch)
        optimize_step(objective, optimizer, batch, weight, runtime, max_grad_norm=1.0)
        seconds.append(time.perf_counter() - began)
    return seconds


def trls(problems: tuple[Problem, ...], steps: int, seed: int, folder: Path) -> list[float]:
    """Seconds of each step of TRL, on transformers' Llama of the same size."""
    from datasets import Dataset
    from transformers import (
        LlamaConfig,
        LlamaForCausalLM,
        PreTrainedTokenizerFast,
        TrainerCallback,
    )
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    file = folder / "tokenizer.json"
    byte_tokenizer([END]).to_huggingface(file)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(file), eos_token=END, pad_token=END, padding_side="left"
    )
    shape = compose("model=tiny").model
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=257,
            hidden_size=shape.d_model,
            intermediate_size=shape.ffn_width,
            num_hidden_layers=shape.num_layers,
            num_attention_heads=shape.num_heads,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=256,
            pad_token_id=256,
        )
    )

    def reward(completions: list[str], answer: list[str], **_: Any) -> list[float | None]:
        pairs = zip(completions, answer, strict=True)
        return [arithmetic("", response, truth).total for response, truth in pairs]

    times: list[float] = []

    class Clock(TrainerCallback):
        """Notes when training begins, and when each step ends."""

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            """Note the time."""
            times.append(time.perf_counter())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            """Note the time."""
            times.append(time.perf_counter())

    settings = GRPOConfig(
        output_dir=str(folder / "out"),
        max_steps=steps,
        per_device_train_batch_size=PROMPTS * SAMPLES,
        num_generations=SAMPLES,
        max_completion_length=TOKENS,
        learning_rate=LR,
        lr_scheduler_type="constant",
        beta=0.0,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to=[],
        logging_strategy="no",
        save_strategy="no",
        disable_tqdm=True,
        seed=seed,
    )
    rows = [{"prompt": p.prompt, "answer": p.truth} for p in problems]
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=reward,
        args=settings,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[Clock()],
    )
    trainer.train()
    return [after - before for before, after in itertools.pairwise(times)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6, help="of each round; the first is left out")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    try:
        import trl  # noqa: F401
    except ImportError as error:
        raise UserError("TRL is not installed: pip install 'lmlab[trl]'") from error
    os.environ["HF_HUB_OFFLINE"] = "1"
    torch.set_num_threads(options.threads)
    keep_freed_memory()  # as training does, here for both
    problems = open_problems(AdditionConfig(kind="addition", digits=2, held_out=0.1), print).train
    rounds: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.rounds):
            mine = ours(problems, options.steps, number)
            other = trls(problems, options.steps, number, Path(folder))
            rounds.append((statistics.median(mine[1:]), statistics.median(other[1:])))
            print(f"round {number}: {rounds[-1]}", file=sys.stderr)
    mine_s, other_s = (statistics.median(times) for times in zip(*rounds, strict=True))
    ratio = statistics.median(a / b for a, b in rounds)
    print(machine(["torch", "transformers", "trl"]), f"{options.threads} threads", sep=", ")
    print()
    rows = [
        ["lmlab", f"{mine_s:.3f}", f"{ratio:.2f}"],
        ["TRL", f"{other_s:.3f}", "1.00"],
    ]
    print(markdown(["step of GRPO", "seconds", "ratio"], rows))


if __name__ == "__main__":
    main()
