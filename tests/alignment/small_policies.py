"""Small policies and the configurations of their runs."""

from collections.abc import Sequence

import torch

from lmlab.alignment.collecting import Collector
from lmlab.alignment.problems.problem import Problem
from lmlab.alignment.rewards import Reward
from lmlab.alignment.rollouts import Decoding
from lmlab.config import RunConfig
from lmlab.model import Transformer, build
from lmlab.tokenizer.bpe import byte_tokenizer
from lmlab.training.runtime import Runtime
from tests_support import composed

TOKENIZER = byte_tokenizer(["<|endoftext|>"])
MODEL = (
    "tokenizer=byte",
    "model.d_model=32",
    "model.num_layers=2",
    "model.num_heads=2",
    "model.d_ff=64",
    "model.context_length=32",
)
RUN = (
    *MODEL,
    "optimizer=adamw",
    "schedule=constant",
    "lr=1e-3",
    "budget.steps=6",
    "trainer.batch_size=8",
    "trainer.device=cpu",
    "trainer.precision=fp32",
    "trainer.eval_every=3",
    "trainer.log_every=1",
    "trainer.checkpoint_every=1",
    "trainer.num_threads=1",
    "task.problems.digits=1",
    "task.rollout.max_new_tokens=5",
    "task.evaluation.problems=8",
    "task.reward=alignment.small_policies.digits",
    "task.shown_every=1",
    "task.shown_prompts=2",
)
GROUPS = ("task.rollout.prompts=4", "task.rollout.samples=4")


def digits(prompt: str, response: str, truth: str) -> Reward:
    """Reward responses for their share of digits: something that random weights now and then do."""
    share = sum(character.isascii() and character.isdigit() for character in response)
    return Reward(float(share > 0), float(response == truth), share / max(1, len(response)))


def even(prompt: str, response: str, truth: str) -> Reward:
    """Reward half of all responses: those whose bytes have an even sum."""
    right = float(sum(response.encode()) % 2 == 0)
    return Reward(1.0, right, right)


def config(task: str, *overrides: str) -> RunConfig:
    """Return the configuration of a run of seconds."""
    return composed(f"task={task}", *RUN, *GROUPS, *overrides)


def policy(*overrides: str, seed: int = 0, value_head: bool = False) -> Transformer:
    torch.manual_seed(seed)
    model = build(composed(*MODEL, *overrides).model, TOKENIZER.vocab_size, value_head=value_head)
    with torch.no_grad():
        model.lm_head.weight *= 3  # responses differ
    return model


def problems(count: int) -> list[Problem]:
    return [Problem(f"{i}+{i * i}=", str(i + i * i)) for i in range(count)]


def judge(asked: Sequence[Problem], responses: Sequence[str]) -> list[Reward]:
    return [digits(p.prompt, r, p.truth) for p, r in zip(asked, responses, strict=True)]


def collector(model: Transformer, max_batch: int = 64, **options: object) -> Collector:
    settings: dict[str, object] = {"prompts": 4, "samples": 4} | options
    return Collector(
        model,
        TOKENIZER,
        problems(10),
        judge,
        Decoding(6, ("0",), max_batch=max_batch, dtype="fp32"),
        Runtime(torch.device("cpu"), seed=7),
        **settings,  # type: ignore[arg-type]
    )
