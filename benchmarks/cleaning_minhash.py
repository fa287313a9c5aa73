"""MinHash signatures beside rensa, datasketch and datatrove, on one core, interleaved.

    python benchmarks/cleaning_minhash.py [--documents 600] [--rounds 3]

Texts of 400 words are the documentation of the standard library; each system gets the text and
gives 112 hashes of its 5-grams of words. rensa and datasketch get the words that lmlab normalises.
Recall is the share of pairs that have an equal band: texts beside copies with some words replaced,
of a true Jaccard similarity of .8 or more, and of .8 to .82, the hardest; a pair a text of each.
"""

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from datasketch import MinHash as Datasketch
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
from rensa import RMinHash

from lmlab.cleaning.hashing import MinHash, jaccard, ngram_set, normalize

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.cleaning import documentation, pieces
from benchmarks.tables import machine, markdown

HASHES, NGRAMS, THRESHOLD, HARD = 112, 5, 0.8, 0.82
BANDS = (14, 16)
COPIES = 30
Signatures = Callable[[Sequence[str]], np.ndarray]


def grams(text: str) -> list[str]:
    """The 5-grams of a text's normalised words."""
    words = normalize(text).decode().split()
    return [" ".join(words[i : i + NGRAMS]) for i in range(len(words) - NGRAMS + 1)]


def by_rensa(texts: Sequence[str]) -> np.ndarray:
    """rensa's signatures."""
    rows = []
    for text in texts:
        minhash = RMinHash(num_perm=HASHES, seed=1)
        minhash.update(grams(text))
        rows.append(minhash.digest())
    return np.array(rows, np.uint64)


def by_datasketch(texts: Sequence[str]) -> np.ndarray:
    """datasketch's signatures."""
    rows = []
    for text in texts:
        minhash = Datasketch(num_perm=HASHES, seed=1)
        minhash.update_batch([gram.encode() for gram in grams(text)])
        rows.append(minhash.hashvalues)
    return np.array(rows, np.uint64)


def by_datatrove(folder: str) -> Signatures:
    """datatrove's signatures."""
    config = MinhashConfig(n_grams=NGRAMS, num_buckets=14, hashes_per_bucket=8)
    step = MinhashDedupSignature(folder, config)
    hashed = step._hash_func
    step._hash_func = lambda text: hashed(text.encode())  # what xxhash 4 wants

    def signatures(texts: Sequence[str]) -> np.ndarray:
        rows = [step.get_signature(step.get_shingles(text)) for text in texts]
        return np.array(rows, np.uint64).reshape(len(texts), -1)

    return signatures


def near(text: str, generator: random.Random) -> str:
    """A copy with up to 24 of its words replaced."""
    lines = [line.split(" ") for line in text.split("\n")]
    places = [(i, j) for i, line in enumerate(lines) for j, word in enumerate(line) if word]
    for i, j in generator.sample(places, generator.randint(0, 24)):
        lines[i][j] = f"other{generator.randrange(10**6)}"
    return "\n".join(" ".join(line) for line in lines)


def recall(a: np.ndarray, b: np.ndarray, bands: int) -> float:
    """The share of pairs that have an equal band."""
    shape = (len(a), bands, HASHES // bands)
    return float((a.reshape(shape) == b.reshape(shape)).all(axis=2).any(axis=1).mean())


def main() -> None:
    """Print documents a second and recall of each system."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    texts = pieces(documentation(), options.documents)
    generator = random.Random(1)
    easy, hard = [], []
    for text in texts:
        copies = [near(text, generator) for _ in range(COPIES)]
        words = ngram_set(text, NGRAMS)
        similar = [(jaccard(words, ngram_set(copy, NGRAMS)), copy) for copy in copies]
        easy += [(text, copy) for score, copy in similar if score >= THRESHOLD][:1]
        hard += [(text, copy) for score, copy in similar if THRESHOLD <= score < HARD][:1]
    with tempfile.TemporaryDirectory() as folder:
        systems: list[tuple[str, Signatures]] = [
            ("lmlab", lambda given: MinHash(HASHES, NGRAMS)(list(given))),
            ("rensa", by_rensa),
            ("datasketch", by_datasketch),
            ("datatrove", by_datatrove(folder)),
        ]
        times: list[list[float]] = [[] for _ in systems]
        for _ in range(options.rounds):
            for mine, (_, signatures) in zip(times, systems, strict=True):
                start = time.process_time()
                signatures(texts)
                mine.append(time.process_time() - start)
        speeds = [len(texts) / statistics.median(part) for part in times]
        rows = []
        for (name, signatures), speed in zip(systems, speeds, strict=True):
            found = []
            for pairs in (easy, hard):
                a, b = (signatures([pair[side] for pair in pairs]) for side in (0, 1))
                found += [f"{recall(a, b, bands):.3f}" for bands in BANDS]
            rows.append([name, f"{speed:,.0f}", f"{speed / speeds[-1]:.1f}x", *found])
    print(machine(["datasketch", "datatrove", "rensa"]))
    print(
        f"{len(texts)} texts, {options.rounds} rounds; {len(easy)} pairs from {THRESHOLD}, "
        f"{len(hard)} pairs from {THRESHOLD} to {HARD}\n"
    )
    bands = [
        f"recall from {THRESHOLD}{to}, {bands} bands of {HASHES // bands}"
        for to in ("", f" to {HARD}")
        for bands in BANDS
    ]
    print(markdown(["system", "documents/s", "to datatrove", *bands], rows))


if __name__ == "__main__":
    main()
