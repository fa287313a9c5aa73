"""One measurement in a process of its own: `python benchmarks/peers.py '{"task": "train", ...}'`.

Prints a JSON object with the seconds of the work itself, the peak memory of the process, and a
digest of the result. Each tool gets the text in the form that it handles fastest, and gives ids in
the form that it makes fastest.
"""

import hashlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.corpora import END, documents

from lmlab.tokenizer.pretokenize import PATTERNS

Merges = list[tuple[bytes, bytes]]
Timed = Callable[[Callable[[], Any]], Any]
"""Runs the work that is measured and returns what it returns."""

WARM_UP = ["Some words to wake every thread up, 1234 of them.\n" * 200] * 64


# Training: each tool's merges in the order of creation. A file of documents goes in.


def train_lmlab(path: Path, vocab_size: int, threads: int, timed: Timed) -> Merges:
    from lmlab.tokenizer import train_bpe

    merges: Merges
    _, merges = timed(lambda: train_bpe(path, vocab_size + 1, [END], num_threads=threads))
    return merges


def train_rustbpe(path: Path, vocab_size: int, threads: int, timed: Timed) -> Merges:
    import rustbpe

    tokenizer = rustbpe.Tokenizer()
    timed(
        lambda: tokenizer.train_from_iterator(documents(path), vocab_size, pattern=PATTERNS["gpt2"])
    )
    ranks = {bytes(token): rank for token, rank in tokenizer.get_mergeable_ranks()}
    return merges_of_ranks(ranks)


def train_tokenizers(path: Path, vocab_size: int, threads: int, timed: Timed) -> Merges:
    import tokenizers

    from lmlab.tokenizer.formats import from_printable

    byte_level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = byte_level
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=byte_level.alphabet(), show_progress=False
    )
    timed(lambda: tokenizer.train_from_iterator(documents(path), trainer))
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [(from_printable(left), from_printable(right)) for left, right in merges]


def merges_of_ranks(ranks: dict[bytes, int]) -> Merges:
    from lmlab.tokenizer.reference import encode_pretoken

    order: dict[tuple[bytes, bytes], int] = {}
    for token in sorted(ranks, key=ranks.__getitem__):
        if len(token) > 1:
            left, right = encode_pretoken(token, order)
            order[left, right] = len(order)
    return list(order)


# Encoding: each tool's ids of all documents, special tokens not looked for. `folder` has one
# vocabulary in every format.


def encode_lmlab(folder: Path, texts: list[str], threads: int, timed: Timed) -> Iterable[Any]:
    from lmlab.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(folder)
    tokenizer.encode_batch(WARM_UP, num_threads=threads)
    ids: Iterable[Any] = timed(lambda: tokenizer.encode_batch(texts, num_threads=threads))
    return ids


def encode_tiktoken(folder: Path, texts: list[str], threads: int, timed: Timed) -> Iterable[Any]:
    import tiktoken
    from tiktoken.load import load_tiktoken_bpe

    encoding = tiktoken.Encoding(
        "benchmark",
        # its own spelling of GPT-2's pattern, which it scans faster than the original one
        pat_str=r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s",
        mergeable_ranks=load_tiktoken_bpe(str(folder / "ranks.tiktoken")),
        special_tokens={},
    )
    encoding.encode_ordinary_batch(WARM_UP, num_threads=threads)
    ids: Iterable[Any] = timed(lambda: encoding.encode_ordinary_batch(texts, num_threads=threads))
    return ids


def encode_tokenizers(folder: Path, texts: list[str], threads: int, timed: Timed) -> Iterable[Any]:
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.encode_batch_fast(WARM_UP)
    encodings = timed(lambda: tokenizer.encode_batch_fast(texts))
    return (encoding.ids for encoding in encodings)


def encode_fastokens(folder: Path, texts: list[str], threads: int, timed: Timed) -> Iterable[Any]:
    import fastokens

    tokenizer = fastokens.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.encode_batch_flat(WARM_UP)
    ids, _ = timed(lambda: tokenizer.encode_batch_flat(texts))
    return [np.frombuffer(ids, np.uint32)]


TRAINERS = {"lmlab": train_lmlab, "rustbpe": train_rustbpe, "tokenizers": train_tokenizers}
ENCODERS = {
    "lmlab": encode_lmlab,
    "fastokens": encode_fastokens,
    "tiktoken": encode_tiktoken,
    "tokenizers": encode_tokenizers,
}


def peak_memory() -> int:
    """The most bytes that this process held at once."""
    try:  # ru_maxrss also counts what the parent held before this program began
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def in_own_process(**request: Any) -> dict[str, Any]:
    """Run this file on a request, with as many threads as the request says."""
    own = {"RAYON_NUM_THREADS": str(request["threads"]), "TOKENIZERS_PARALLELISM": "true"}
    own["TIKTOKEN_CACHE_DIR"] = ""  # it would take the ranks that once had the same path
    result = subprocess.run(
        [sys.executable, __file__, json.dumps(request)],
        env=os.environ | own,
        stdout=subprocess.PIPE,
        check=True,
    )
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


def main() -> None:
    request = json.loads(sys.argv[1])
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if cores:
        os.sched_setaffinity(0, cores[: request["threads"]])
    seconds, peak = 0.0, 0

    def timed(work: Callable[[], Any]) -> Any:
        nonlocal seconds, peak
        start = time.perf_counter()
        result = work()
        seconds, peak = time.perf_counter() - start, peak_memory()
        return result

    path = Path(request["path"])
    answer: dict[str, Any] = {}
    if request["task"] == "train":
        train = TRAINERS[request["tool"]]
        merges = train(path, request["vocab_size"], request["threads"], timed)
        answer["merges"] = [[left.hex(), right.hex()] for left, right in merges]
    elif request["task"] == "encode_file":
        from lmlab.tokenizer import Tokenizer

        tokenizer = Tokenizer.load(request["folder"])
        out = path.with_suffix(".bin")
        threads = request["threads"]
        answer["tokens"] = timed(lambda: tokenizer.encode_file(path, out, num_threads=threads))
        out.unlink()
    else:
        texts = list(documents(path))
        encode = ENCODERS[request["tool"]]
        digest, count = hashlib.sha256(), 0
        for ids in encode(Path(request["folder"]), texts, request["threads"], timed):
            array = np.asarray(ids, np.uint32)
            digest.update(array.tobytes())
            count += len(array)
        answer |= {"digest": digest.hexdigest(), "tokens": count}
    print(json.dumps(answer | {"seconds": seconds, "peak": peak}))


if __name__ == "__main__":
    main()
