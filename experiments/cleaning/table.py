"""Measure the runs of this experiment on the held-out books; write the tables and the picture.

    python experiments/cleaning/table.py corpus [--runs runs/sweeps/cleaning]

Bits per byte of windows of the context length that do not overlap: the whole Debian handbook, and
the first ten pages of the FAQ on anarchism.
"""

import argparse
import csv
import io
import json
import sys
from collections.abc import Mapping
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

from benchmarks.tables import machine, markdown, put_section  # noqa: E402

from lmlab.cleaning.written import read_written  # noqa: E402
from lmlab.config import load_yaml  # noqa: E402
from lmlab.evaluation import Scorer, evaluate_text  # noqa: E402
from lmlab.evaluation.corpora import from_paths  # noqa: E402
from lmlab.figures import COLORS, picture  # noqa: E402
from lmlab.files import atomic_write  # noqa: E402
from lmlab.loading import load  # noqa: E402
from lmlab.runs.statistics import Comparisons, estimate  # noqa: E402
from lmlab.tokenizer import Tokenizer  # noqa: E402

ARMS = {
    "raw": "raw",
    "main": "main content",
    "filtered": "+ filters",
    "deduplicated": "+ deduplication",
}
BOOKS = {"debian-handbook": ("handbook", None), "anarchism": ("FAQ", 10)}
Values = dict[str, dict[str, dict[object, float]]]
"""Book -> arm -> seed -> bits per byte."""


def measure(runs: Path, corpus: Path) -> list[dict[str, str]]:
    """One row a run and book."""
    rows = []
    for directory in sorted(path.parent for path in runs.glob("*/result.json")):
        config = load_yaml(directory / "config.yaml")
        scorer = Scorer(load(directory), batch_size=32)
        for book, (_, limit) in BOOKS.items():
            path = corpus / "held_out" / f"{book}.jsonl"
            text = from_paths(book, [str(path)], limit=limit)
            context = config.model.context_length
            found = evaluate_text(scorer, text.documents(), stride=context)
            row = {
                "arm": Path(config.data.path).name,
                "seed": str(config.seed),
                "book": book,
                "bits_per_byte": f"{found.bits_per_byte.value:.5f}",
            }
            print(*row.values(), flush=True)
            rows.append(row)
    return rows


def results(rows: list[dict[str, str]]) -> str:
    """The table of means and deviations, and the differences between neighbouring arms."""
    values: Values = {book: {arm: {} for arm in ARMS} for book in BOOKS}
    for row in rows:
        values[row["book"]][row["arm"]][row["seed"]] = float(row["bits_per_byte"])
    table = []
    for arm, title in ARMS.items():
        cells = [title]
        for by_arm in values.values():
            found = estimate(list(by_arm[arm].values()))
            cells += [f"{found.mean:.4f}", f"{found.sd:.4f}", *_step(by_arm, arm)]
        table.append(cells)
    header = ["text"]
    for name, _ in BOOKS.values():
        header += [f"{name}, bits per byte", "sd", "to the row above", "p"]
    draw(values)
    return markdown(header, table)


def _step(by_arm: Mapping[str, Mapping[object, float]], arm: str) -> list[str]:
    """How much an arm changes the one before it, and the p-value adjusted for all pairs."""
    index = list(ARMS).index(arm)
    if index == 0:
        return ["", ""]
    difference = Comparisons(list(by_arm.values())).difference(index - 1, index)
    p = difference.p or 0.0
    return [f"{difference.value:+.4f}", "< .001" if p < 0.001 else f"{p:.3f}"]


def draw(values: Values) -> None:
    """Each run a dot, each arm its mean."""
    title = "Bits per byte of held-out books after the same number of tokens"
    with picture(HERE / "bits_per_byte.png", title, (8.4, 3.6), panels=len(BOOKS)) as panels:
        for axes, (book, by_arm) in zip(panels, values.items(), strict=True):
            for place, (arm, color) in enumerate(zip(ARMS, COLORS, strict=False)):
                found = list(by_arm[arm].values())
                axes.plot(found, [place] * len(found), "o", color=color, alpha=0.8)
                axes.plot(estimate(found).mean, place, "|", color=color, markersize=22)
            axes.set_yticks(range(len(ARMS)), list(ARMS.values()))
            axes.set_ylim(len(ARMS) - 0.5, -0.5)
            axes.set_xlabel(f"bits per byte, {BOOKS[book][0]}")


def funnel(corpus: Path) -> str:
    """What each step removed, and what is left."""
    tokenizer = Tokenizer.load(corpus / "tokenizer")
    table = []
    for arm, title in ARMS.items():
        manifest = json.loads((corpus / arm / "manifest.json").read_text())
        removed = [
            f"{name} {count:,}"
            for name, step in manifest["steps"].items()
            if (count := step["documents_in"] - step["documents_out"])
        ]
        texts = [
            document.text
            for shard in (corpus / arm / "shards").iterdir()
            for document in read_written(shard)
        ]
        tokens = sum(len(ids) for ids in tokenizer.encode_batch(texts))
        sizes = [f"{manifest['kept']:,}", f"{manifest['kept_characters'] / 1e6:.2f}"]
        table.append([title, *sizes, f"{tokens / 1e6:.2f}", ", ".join(removed)])
    header = ["text", "documents", "million characters", "million tokens", "removed documents"]
    return markdown(header, table)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("runs/sweeps/cleaning"))
    options = parser.parse_args()
    table = funnel(options.corpus)
    rows = measure(options.runs, options.corpus)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with atomic_write(HERE / "runs.csv") as file:
        file.write(text.getvalue())
    picture_line = "![Bits per byte of each run](bits_per_byte.png)"
    parts = [f"{machine(['torch'])}.", results(rows), picture_line]
    put_section(HERE / "README.md", "results", "\n\n".join(parts))
    put_section(HERE / "README.md", "funnel", table)


if __name__ == "__main__":
    main()
