"""Peak memory of a step with and without chunked cross-entropy and checkpointed activations.

Each case is a process of its own, one step after a warm-up of one. On the CPU the figure is the
process's largest resident set less what it held before the model was built; on CUDA it is torch's
largest allocation.

    python benchmarks/training_memory.py [--device cuda] [KEY=VALUE ...]
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

CASES: dict[str, list[str]] = {
    "plain": ["task.objective.chunk_tokens=null"],
    "chunked cross-entropy": ["task.objective.chunk_tokens=512"],
    "checkpointed activations": [
        "task.objective.chunk_tokens=null",
        "trainer.checkpoint_activations=true",
    ],
    "both": ["task.objective.chunk_tokens=512", "trainer.checkpoint_activations=true"],
}
SHAPE = ["model=tiny", "model.num_layers=8", "model.context_length=256", "trainer.batch_size=16"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--vocab", type=int, default=50_257)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.device, arguments.vocab, arguments.overrides)))
        return
    print(f"vocabulary {arguments.vocab:,}, {' '.join([*SHAPE, *arguments.overrides])}, ")
    print("| step | peak memory (MiB) | seconds | loss |\n| --- | ---: | ---: | ---: |")
    for name, overrides in CASES.items():
        command = [sys.executable, __file__, "--one", "--device", arguments.device]
        command += ["--vocab", str(arguments.vocab), *SHAPE, *arguments.overrides, *overrides]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        case = json.loads(done.stdout)
        memory, seconds = case["bytes"] / 2**20, case["seconds"]
        print(f"| {name} | {memory:,.0f} | {seconds:.2f} | {case['loss']:.5f} |")


def measure(device_name: str, vocab: int, overrides: list[str]) -> dict[str, float]:
    import torch

    from lmlab.hydra_app import compose_run
    from lmlab.model import build
    from lmlab.optim import build_optimizer
    from lmlab.training.device import resolve_precision
    from lmlab.training.objective import NextToken
    from lmlab.training.runtime import Runtime
    from lmlab.training.step import optimize_step

    config = compose_run(Path(__file__).parents[1] / "conf", overrides)
    device = torch.device(device_name)
    precision = resolve_precision(config.trainer.precision, device)
    torch.manual_seed(0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    model = build(config.model, vocab).to(device)
    model.checkpoint_activations = config.trainer.checkpoint_activations
    chunk_tokens = config.next_token_objective().chunk_tokens
    assert chunk_tokens != "auto"
    objective = NextToken(model, chunk_tokens=chunk_tokens)
    optimizer = build_optimizer(config.optimizer, model)
    ids = torch.randint(0, vocab, (config.trainer.batch_size, config.model.context_length + 1))
    seconds = 0.0
    for _ in range(2):
        started = time.perf_counter()
        stats = optimize_step(
            objective,
            optimizer,
            (ids[:, :-1], ids[:, 1:]),
            ids[:, 1:].numel(),
            Runtime(device, precision),
            micro_batch_size=config.trainer.micro_batch_size,
            max_grad_norm=config.trainer.max_grad_norm,
        )
        loss = stats.terms["loss"].item()
        seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
    return {"bytes": peak, "seconds": seconds, "loss": loss}


if __name__ == "__main__":
    main()
