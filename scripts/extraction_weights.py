"""Train the block classifier of main-content extraction and write its weights.

    python scripts/extraction_weights.py PAGES [--folds N]

PAGES holds `<id>.html.gz` files and `ground-truth.json`: id -> {"articleBody": text, "url": url},
as in github.com/scrapinghub/article-extraction-benchmark. Half of the sites are trained on, the
others are held out; the held-out F1 that is printed is that of the written weights. --folds adds
the F1 of cross-validation over all pages, with no site in two folds.
"""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from lmlab.cleaning import native
from lmlab.cleaning.html import ENTITIES, WEIGHTS, decode_html
from lmlab.files import atomic_write

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.pages import Page, Sites, f1, ngrams, read_sites

Array = NDArray[np.float64]
PENALTY = 3e-4


def labels(blocks: Sequence[str], truth: str) -> tuple[Array, Array]:
    """Whether each block belongs to the true text, and its weight: its words' share of the page."""
    wanted = ngrams(truth)
    lines = {" ".join(re.findall(r"\w+", line)) for line in truth.splitlines()}
    found, sizes = [], []
    for block in blocks:
        words = re.findall(r"\w+", block)
        grams = ngrams(block)
        inside = (grams & wanted).total() / max(1, grams.total())
        found.append(inside > 0.5 if len(words) >= 4 else " ".join(words) in lines)
        sizes.append(len(words) ** 0.75)
    weights = np.array(sizes) / max(1.0, sum(sizes))
    return np.array(found, dtype=float), weights


def fit(x: Array, y: Array, weights: Array) -> Array:
    """Logistic regression with an L2 penalty on standardised features; for raw features."""
    mean, std = x.mean(0), x.std(0)
    constant = std < 1e-9
    mean[constant], std[constant] = 0, 1
    mean[0] = 0  # the bias
    scaled = (x - mean) / std
    weights = weights / weights.sum()

    def loss(w: Array) -> tuple[float, Array]:
        z = scaled @ w
        value = weights @ (np.logaddexp(0, z) - y * z) + PENALTY * (w[1:] @ w[1:])
        gradient = scaled.T @ (weights * (1 / (1 + np.exp(-z)) - y))
        gradient[1:] += 2 * PENALTY * w[1:]
        return float(value), gradient

    w = minimize(
        loss, np.zeros(x.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 2000}
    ).x
    raw: Array = w / std
    raw[0] -= raw[1:] @ mean[1:]
    return raw


def utf8(raw: bytes) -> bytes:
    """The page as UTF-8."""
    return decode_html(raw).encode()


def flat(sites: Sites) -> list[Page]:
    """The pages of all sites."""
    return [page for site in sites for page in site]


def train(pages: Sequence[Page]) -> tuple[list[float], list[float]]:
    """The weights of both classifiers; the second is trained on out-of-fold probabilities."""

    def dataset(
        weights: Sequence[float], some: Sequence[Page], context: bool
    ) -> tuple[Array, Array, Array]:
        extractor = native.Extractor(ENTITIES, weights, ())
        rows, wanted, shares = [], [], []
        for html, truth in some:
            blocks = extractor.blocks(html, context=context)
            y, share = labels([text for text, _ in blocks], truth)
            rows += [x for _, x in blocks]
            wanted.append(y)
            shares.append(share)
        return np.array(rows), np.concatenate(wanted), np.concatenate(shares)

    parts = []
    for fold in range(5):
        rest = [page for i, page in enumerate(pages) if i % 5 != fold]
        first = fit(*dataset((), rest, context=False)).tolist()
        parts.append(dataset(first, pages[fold::5], context=True))
    second = fit(*(np.concatenate(part) for part in zip(*parts, strict=True)))
    return fit(*dataset((), pages, context=False)).tolist(), second.tolist()


def evaluate(pages: Sequence[Page], first: Sequence[float], second: Sequence[float]) -> float:
    """The F1 on pages."""
    extractor = native.Extractor(ENTITIES, first, second)
    return f1(
        [extractor.extract(html, 1 << 10)[1] for html, _ in pages], [truth for _, truth in pages]
    )


def main() -> None:
    """Train, report and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pages", type=Path)
    parser.add_argument("--folds", type=int, default=0)
    options = parser.parse_args()
    sites = [[(utf8(raw), truth) for raw, truth in site] for site in read_sites(options.pages)]
    if options.folds:
        scores = []
        for fold in range(options.folds):
            rest = [site for i, site in enumerate(sites) if i % options.folds != fold]
            scores.append(evaluate(flat(sites[fold :: options.folds]), *train(flat(rest))))
        print(
            f"cross-validation: F1 {np.mean(scores):.3f} ({', '.join(f'{s:.3f}' for s in scores)})"
        )
    trained, held_out = flat(sites[::2]), flat(sites[1::2])
    first, second = train(trained)
    print(f"{len(trained)} pages trained on: F1 {evaluate(trained, first, second):.3f}")
    print(f"{len(held_out)} pages held out: F1 {evaluate(held_out, first, second):.3f}")
    rounded = {"first": [round(w, 4) for w in first], "second": [round(w, 4) for w in second]}
    with atomic_write(WEIGHTS) as file:
        json.dump(rounded, file)
        file.write("\n")


if __name__ == "__main__":
    main()
