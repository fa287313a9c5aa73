"""Web pages with their true main content, and the F1 of what an extractor finds in them."""

import gzip
import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

Page = tuple[bytes, str]
"""HTML and its true text."""
Sites = list[list[Page]]


def ngrams(text: str) -> Counter[tuple[str, ...]]:
    """The 4-grams of words; shorter texts are one n-gram."""
    words = re.findall(r"\w+", text)
    return (
        Counter(tuple(words[i : i + 4]) for i in range(max(1, len(words) - 3)))
        if words
        else Counter()
    )


def precision_recall(text: str, truth: str) -> tuple[float, float]:
    """Shares of the extracted and of the true 4-grams that are in both."""
    found, wanted = ngrams(text), ngrams(truth)
    both = (found & wanted).total()
    return both / max(1, found.total()), both / max(1, wanted.total())


def f1(texts: Sequence[str], truths: Sequence[str]) -> float:
    """The harmonic mean of mean precision and mean recall."""
    precision, recall = np.mean(
        [precision_recall(*pair) for pair in zip(texts, truths, strict=True)], axis=0
    )
    return float(2 * precision * recall / (precision + recall))


def read_sites(folder: Path) -> Sites:
    """The pages of a folder with their true texts, by site in the order of the sites' names."""
    truth = json.loads((folder / "ground-truth.json").read_text(encoding="utf-8"))
    sites: dict[str, list[Page]] = {}
    for name in sorted(truth):
        raw = gzip.decompress((folder / f"{name}.html.gz").read_bytes())
        site = urlsplit(truth[name]["url"]).hostname or name
        sites.setdefault(site.removeprefix("www."), []).append((raw, truth[name]["articleBody"]))
    return [sites[site] for site in sorted(sites)]
