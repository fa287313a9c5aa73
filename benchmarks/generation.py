"""Generation beside transformers on the same weights, the shape of conf/model/tinystories.

    python benchmarks/generation.py [--rounds 3] [--tokens 64] [--threads 2]

All contenders are interleaved in one process, llama.cpp among them where llama-cpp-python is
installed; the figures are medians, the ratios are to transformers in float32 in the same round. The
bandwidth limit is the measured rate of reading memory, divided by the bytes that a token reads.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from lmlab.accounting.inference import decode_costs, prefill_costs
from lmlab.export import save_gguf
from lmlab.generation.engine import Engine
from lmlab.generation.options import Options
from lmlab.generation.weights import Dtype
from lmlab.hydra_app import compose
from lmlab.model import Transformer, build
from lmlab.tokenizer import Tokenizer

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.llama import llama_of  # noqa: E402
from benchmarks.tables import machine, markdown  # noqa: E402

PROMPT = 16
VOCAB = 10_000
LLAMA_CPP: tuple[Literal["fp32", "fp16", "q8_0"], ...] = ("fp32", "fp16", "q8_0")
SIZES = {"fp16": "bf16", "q8_0": "int8"}
"""llama.cpp's types, and ours of the same size."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    model = build(compose("model=tinystories").model, VOCAB).eval()
    # Bytes and pairs of bytes: what is measured is the model and the sampling.
    pairs = [(bytes([i // 256]), bytes([i % 256])) for i in range(VOCAB - 256)]
    vocab = dict(enumerate([*(bytes([i]) for i in range(256)), *(a + b for a, b in pairs)]))
    tokenizer = Tokenizer(vocab, pairs)
    theirs, prompt = llama_of(model), torch.randint(VOCAB, (16, PROMPT))
    long = torch.randint(VOCAB, (1, model.context_length - 1))

    def transformers(ids: torch.Tensor, new: int) -> list[list[int]]:
        out = theirs.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, do_sample=False
        )
        return out[:, ids.shape[1] :].tolist()

    def lmlab(engine: Engine, ids: torch.Tensor, new: int) -> list[list[int]]:
        options = Options(max_new_tokens=new, temperature=0)
        submitted = [engine.submit(row, options) for row in ids.tolist()]
        for _ in engine.run():
            pass
        return [generation.tokens for generation in submitted]

    contenders: dict[str, Callable[[torch.Tensor, int], list[list[int]]]] = {
        "transformers fp32": transformers
    }
    dtypes: tuple[Dtype, ...] = ("fp32", "bf16", "int8")
    engines: dict[str, Engine] = {
        d: Engine(model, tokenizer, max_batch=16, dtype=d) for d in dtypes
    }
    for dtype, engine in engines.items():
        contenders[f"lmlab {dtype}"] = partial(lmlab, engine)
    same = contenders["transformers fp32"](prompt, 20) == contenders["lmlab fp32"](prompt, 20)
    contenders |= llama_cpp(model, tokenizer, arguments.threads)

    seconds: dict[tuple[str, str], list[float]] = {}
    for round_ in range(arguments.rounds + 1):
        for name, run in contenders.items():
            for part, ids, new in (
                ("first1", prompt[:1], 1),
                ("all1", prompt[:1], 1 + arguments.tokens),
                ("first16", prompt, 1),
                ("all16", prompt, 1 + arguments.tokens),
                ("prefill", long, 1),
            ):
                if name.startswith("llama.cpp") and len(ids) > 1:
                    continue  # its Python interface generates one sequence at a time
                started = time.perf_counter()
                run(ids, new)
                if round_:
                    seconds.setdefault((name, part), []).append(time.perf_counter() - started)

    def decode(name: str, batch: int) -> list[float]:
        """Tokens a second after the first one, in each round."""
        pairs = zip(seconds[name, f"all{batch}"], seconds[name, f"first{batch}"], strict=True)
        return [batch * arguments.tokens / (a - b) for a, b in pairs]

    def ratio(name: str, batch: int) -> float:
        pairs = zip(decode(name, batch), decode("transformers fp32", batch), strict=True)
        return statistics.median(a / b for a, b in pairs)

    prefills = {name: statistics.median(seconds[name, "prefill"]) for name in contenders}
    rate = bandwidth()
    length = PROMPT + arguments.tokens // 2  # on average
    print(machine(["torch", "transformers"]))
    print(f"{arguments.threads} threads; memory {rate / 1e9:.1f} GB/s; same greedy tokens: {same}")
    rows = []
    for name in contenders:
        dtype = name.split()[1]
        size = SIZES.get(dtype, dtype)
        limit = decode_costs(model, size, 1, length).tokens_per_second(rate)
        one = statistics.median(decode(name, 1))
        engine_ = engines.get(dtype) if name.startswith("lmlab") else None
        prefill = prefills[name]
        several = (name, "all16") in seconds
        rows.append(
            [
                name,
                f"{one:.0f}",
                f"{ratio(name, 1):.2f}",
                f"{one / limit:.0%}",
                f"{statistics.median(decode(name, 16)):.0f}" if several else "",
                f"{ratio(name, 16):.2f}" if several else "",
                f"{long.shape[1] / prefill:.0f}",
                f"{prefills['transformers fp32'] / prefill:.2f}",
                f"{statistics.median(seconds[name, 'first1']) * 1000:.1f}",
                f"{engine_.cache.bytes / 16 / 1e6:.2f}" if engine_ else "",
            ]
        )
    header = ["", "tokens/s", "ratio", "of limit", "tokens/s, 16", "ratio, 16"]
    header += ["prefill tokens/s", "ratio, prefill", "first token, ms", "cache MB a row"]
    print(markdown(header, rows))
    print("\nArithmetic intensity, FLOPs a byte:\n")
    intensities = [
        [
            dtype,
            f"{decode_costs(model, dtype, 1, length).intensity:.2f}",
            f"{decode_costs(model, dtype, 16, length).intensity:.1f}",
            f"{prefill_costs(model, dtype, long.shape[1]).intensity:.0f}",
        ]
        for dtype in dtypes
    ]
    print(markdown(["", "decode, 1", "decode, 16", f"prefill of {long.shape[1]}"], intensities))


def llama_cpp(
    model: Transformer, tokenizer: Tokenizer, threads: int
) -> dict[str, Callable[[torch.Tensor, int], list[list[int]]]]:
    """llama.cpp with the same weights in its types; nothing where it is not installed."""
    try:
        from llama_cpp import Llama
    except ImportError:
        return {}

    def run(llama: Any, ids: torch.Tensor, new: int) -> list[list[int]]:
        llama.reset()
        generated = llama.generate(ids[0].tolist(), temp=0.0, reset=True)
        return [[next(generated) for _ in range(new)]]

    contenders: dict[str, Callable[[torch.Tensor, int], list[list[int]]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for dtype in LLAMA_CPP:
            path = Path(folder) / f"{dtype}.gguf"
            save_gguf(model, tokenizer, path, dtype)
            llama = Llama(
                str(path),
                n_ctx=model.context_length,
                n_threads=threads,
                n_threads_batch=threads,
                verbose=False,
                use_mmap=False,
            )
            contenders[f"llama.cpp {dtype}"] = partial(run, llama)
    return contenders


def bandwidth() -> float:
    """Bytes a second of reading an array that no cache holds; the best of five."""
    array, best = torch.ones(64 * 1024 * 1024), float("inf")
    for _ in range(5):
        started = time.perf_counter()
        array.sum()
        best = min(best, time.perf_counter() - started)
    return array.nbytes / best


if __name__ == "__main__":
    main()
