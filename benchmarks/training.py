"""Training speed beside transformers' Llama and plain torch of the same shape, eager and compiled.

    python benchmarks/training.py [--device cuda] [--rounds 5] [KEY=VALUE ...]

Each contender is a process that keeps its model and takes turns with the others: a round is a few
steps of each. A step is forward, loss, backward, clipping and AdamW (torch's fused kernel for
all), with the same batch and precision. Figures are medians over the rounds; ratios and MFU are
taken within a round, to the best peer and to the device's matrix-product peak in that round.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
OURS, PEERS = "lmlab", ("transformers", "plain torch")
CONTENDERS = tuple(f"{n}{c}" for n in (OURS, *PEERS) for c in ("", ", compiled"))
PEAK = "peak"
SHAPE = ["model=tinystories", "trainer.precision=bf16"]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--vocab", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="steps of each contender in a round")
    parser.add_argument("--only", choices=CONTENDERS, nargs="+", default=list(CONTENDERS))
    parser.add_argument("--serve", choices=(*CONTENDERS, PEAK), help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    options = parser.parse_args()
    if options.serve:
        serve(options)
        return
    contenders = {name: Contender(name, sys.argv[1:]) for name in options.only}
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    peak = Contender(PEAK, sys.argv[1:])
    peaks: list[float] = []
    for _ in range(options.rounds):
        peaks.append(peak.ask()["peak"])
        for name, contender in contenders.items():
            rates[name].append(contender.ask()["tokens_per_second"])
    peak.finish()
    facts = {name: contender.finish() for name, contender in contenders.items()}
    peers = [name for name in contenders if not name.startswith(OURS)]
    first = facts[options.only[0]]
    settings = {pair.partition("=")[0]: pair for pair in (*SHAPE, *options.overrides)}
    print(f"{first['device']}, {' '.join(settings.values())}, vocabulary ", end="")
    print(f"{options.vocab:,}, {first['parameters']:,} parameters, ", end="")
    print(f"peak {statistics.median(peaks):.3g} FLOP/s")
    print("| | tokens/s | to the best peer | MFU | peak memory (GiB) | first step (s) |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, fact in facts.items():
        ratios = [
            rate / max(rates[peer][i] for peer in peers) for i, rate in enumerate(rates[name])
        ]
        rate = statistics.median(rates[name])
        flops = [each * first["flops_per_token"] for each in rates[name]]
        mfu = statistics.median(a / b for a, b in zip(flops, peaks, strict=True))
        print(
            f"| {name} | {rate:,.0f} | {statistics.median(ratios):.2f} | {mfu:.2f} "
            f"| {fact['memory']:.2f} | {fact['first_step']:.1f} |"
        )


class Contender:
    """A process that trains a few steps whenever it is asked to."""

    def __init__(self, name: str, arguments: list[str]) -> None:
        command = [sys.executable, __file__, "--serve", name, *arguments]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.first = self._read()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a contender ended: {self.process.args!r}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self) -> dict[str, Any]:
        """Let it train."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self._read()

    def finish(self) -> dict[str, Any]:
        """End it, and return what it knows of itself."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.first | self._read()


def serve(options: argparse.Namespace) -> None:
    import torch

    from lmlab.accounting.costs import count_costs
    from lmlab.hydra_app import compose_run
    from lmlab.training.runtime import Runtime
    from lmlab.training.step import optimize_step
    from lmlab.training.throughput import measure_peak, peak_memory, synchronize

    config = compose_run(ROOT / "conf", [*SHAPE, *options.overrides])
    device, precision = torch.device(options.device), config.trainer.precision
    length, batch_size = config.model.context_length, config.trainer.batch_size
    costs = count_costs(config.model, config.optimizer, options.vocab, precision)
    if options.serve == PEAK:
        answer({})
        for _ in sys.stdin:
            answer({"peak": measure_peak(device, precision)})
        answer({})
        return
    ids = torch.randint(0, options.vocab, (batch_size, length + 1))
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.manual_seed(0)
    builders = {OURS: lmlab, "transformers": transformers, "plain torch": plain}
    build = builders[options.serve.partition(",")[0]]
    objective = build(config, options.vocab, device)
    runtime = Runtime(device, precision)
    parameters = list(objective.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.1, fused=True)
    fast: Any = torch.compile(objective) if options.serve.endswith("compiled") else objective

    def step() -> float:
        started = time.perf_counter()
        optimize_step(
            fast,
            optimizer,
            (ids[:, :-1], ids[:, 1:]),
            ids[:, 1:].numel(),
            runtime,
            micro_batch_size=config.trainer.micro_batch_size,
            max_grad_norm=config.trainer.max_grad_norm,
        )
        synchronize(device)
        return time.perf_counter() - started

    first_step = step()
    step()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    facts = {"device": name, "parameters": sum(p.numel() for p in parameters)}
    answer(facts | {"flops_per_token": costs.flops_per_token, "first_step": first_step})
    for _ in sys.stdin:
        seconds = [step() for _ in range(options.steps)]
        answer({"tokens_per_second": batch_size * length / statistics.median(seconds)})
    answer({"memory": peak_memory(device)})


def answer(values: dict[str, Any]) -> None:
    print(json.dumps(values), flush=True)


def lmlab(config: Any, vocab: int, device: Any) -> Any:
    from lmlab.model import build
    from lmlab.training.chunking import fastest_chunk
    from lmlab.training.device import keep_freed_memory
    from lmlab.training.objective import NextToken

    keep_freed_memory()
    chunk_tokens = fastest_chunk(device)
    return NextToken(build(config.model, vocab).to(device), chunk_tokens=chunk_tokens)


def transformers(config: Any, vocab: int, device: Any) -> Any:
    from torch import Tensor, nn
    from transformers import LlamaForCausalLM

    sys.path.insert(0, str(ROOT))
    from benchmarks.llama import llama_config

    llama: Callable[..., Any] = LlamaForCausalLM
    peer = llama(llama_config(config.model, vocab)).to(device)
    peer.set_attn_implementation("sdpa")

    class Objective(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = peer

        def forward(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            logits = self.model(inputs, use_cache=False).logits
            loss = nn.functional.cross_entropy(
                logits.float().flatten(0, 1), targets.flatten(), reduction="sum"
            )
            return loss, {"loss": loss.detach()}

    return Objective()


def plain(config: Any, vocab: int, device: Any) -> Any:
    sys.path.insert(0, str(ROOT))
    from benchmarks.plain_gpt import PlainGPT

    return PlainGPT(config.model, vocab).to(device)


if __name__ == "__main__":
    main()
