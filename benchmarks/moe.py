"""A step with experts against one of the dense model with the same active FLOPs.

    python benchmarks/moe.py [--rounds 15] [--threads 2] [GROUP=CHOICE KEY=VALUE ...]

Both models take turns, so that a busy machine slows both; medians and their ratio are printed. The
dense feed-forward is as wide as the experts of one token together.
"""

import argparse
import statistics
import time

import torch
from torch import Tensor

from lmlab.accounting.account import account
from lmlab.hydra_app import compose
from lmlab.model import Transformer, build
from lmlab.optim import build_optimizer
from lmlab.training.losses import cross_entropy

VOCAB = 4096
PARTS = ("forward", "backward", "optimizer")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    experts = compose("model/ffn=moe", *options.overrides)
    ffn, width = experts.model.ffn, experts.model.ffn_width
    assert ffn.kind == "moe"
    # An override of the experts is none of the dense model's.
    others = [o for o in options.overrides if not o.startswith(("model.ffn", "model.d_ff"))]
    dense = compose(*others, f"model.d_ff={(ffn.top_k + ffn.shared_experts) * width}")
    torch.manual_seed(0)
    models, optimizers = {}, {}
    for name, config in (("dense", dense), ("moe", experts)):
        models[name] = build(config.model, VOCAB)
        optimizers[name] = build_optimizer(config.optimizer, models[name])
        counted = account(config.model, config.optimizer, VOCAB)
        print(f"{name:<6} {counted.parameters:>12,} parameters  {counted.flops:.4g} FLOPs forward")
    shape = (experts.trainer.batch_size, experts.model.context_length + 1)
    seconds: dict[tuple[str, str], list[float]] = {(n, p): [] for n in models for p in PARTS}
    for round_ in range(options.rounds + 2):
        batch = torch.randint(VOCAB, shape)
        for name, model in models.items():
            times = step(model, optimizers[name], batch)
            if round_ >= 2:
                for part, taken in zip(PARTS, times, strict=True):
                    seconds[name, part].append(taken)
    print(f"\n{'':<10}{'dense':>10}{'moe':>10}{'ratio':>8}   median of {options.rounds}, seconds")
    for part in (*PARTS, "step"):
        dense_s, moe_s = (_median(seconds, name, part) for name in ("dense", "moe"))
        print(f"{part:<10}{dense_s:>10.4f}{moe_s:>10.4f}{moe_s / dense_s:>8.2f}")


def step(
    model: Transformer, optimizer: torch.optim.Optimizer, batch: Tensor
) -> tuple[float, float, float]:
    """Return the seconds of the forward pass, the backward pass and the optimizer."""
    optimizer.zero_grad(set_to_none=True)
    began = time.perf_counter()
    loss = cross_entropy(model(batch[:, :-1]), batch[:, 1:])
    loss = sum(model.auxiliary_losses().values(), loss)
    forward = time.perf_counter()
    loss.backward()
    backward = time.perf_counter()
    optimizer.step()
    return forward - began, backward - forward, time.perf_counter() - backward


def _median(seconds: dict[tuple[str, str], list[float]], name: str, part: str) -> float:
    if part != "step":
        return statistics.median(seconds[name, part])
    return statistics.median(map(sum, zip(*(seconds[name, p] for p in PARTS), strict=True)))


if __name__ == "__main__":
    main()
