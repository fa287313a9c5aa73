"""Training and encoding beside the other tokenizer libraries, in one run.

    python benchmarks/tokenizer.py                  # about an hour, the figures of the README
    python benchmarks/tokenizer.py --quick          # a few minutes, to see that it works
    python benchmarks/tokenizer.py --text my.txt    # your own text as one more corpus

First it checks that the results agree where they should. Then the tools take turns, each
measurement in a process of its own with as many cores as threads; the medians count. The tables and
the plot go to experiments/tokenizer/.
"""

import argparse
import shutil
import statistics
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from tqdm import tqdm

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import corpora  # noqa: E402
from benchmarks.peers import ENCODERS, TRAINERS, Merges, in_own_process  # noqa: E402
from benchmarks.tables import machine, markdown, put_section  # noqa: E402

from lmlab.tokenizer import Tokenizer, reference, train_bpe  # noqa: E402

PATIENCE = 20.0  # seconds of a tool in one case, after which it need not run again


@dataclass(frozen=True)
class Case:
    """One comparison: every tool does the same work."""

    task: str
    corpus: Path
    name: str
    threads: int
    vocab_size: int
    folder: Path | None = None

    @property
    def megabytes(self) -> float:
        """The size of the text."""
        return self.corpus.stat().st_size / 1e6


@dataclass
class Runs:
    """What one tool did in one case."""

    seconds: list[float] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)
    answer: dict[str, Any] = field(default_factory=dict)

    @property
    def median(self) -> float:
        """The median of the seconds."""
        return statistics.median(self.seconds)


def measure(tool: str, case: Case) -> dict[str, Any]:
    """One measurement in its own process."""
    return in_own_process(
        task=case.task,
        tool=tool,
        threads=case.threads,
        path=str(case.corpus),
        vocab_size=case.vocab_size,
        folder=str(case.folder),
    )


def merges_of(answer: dict[str, Any]) -> Merges:
    return [(bytes.fromhex(a), bytes.fromhex(b)) for a, b in answer["merges"]]


def check_merges(sample: Path, ours: Merges, theirs: Merges, tool: str) -> str:
    """Stop unless the merges are equal up to a pair that is as frequent as ours; say how far."""
    same = next(
        (i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), len(ours)
    )
    if same == len(ours) == len(theirs):
        return f"{tool}: all {same} merges equal"
    words: dict[reference.Word, int] = defaultdict(int)
    ranks = {pair: rank for rank, pair in enumerate(ours[:same])}
    counts = reference.count_pretokens(sample.read_bytes().decode(), [corpora.END], "gpt2")
    for pretoken, count in counts.items():
        words[reference.encode_pretoken(pretoken, ranks)] += count
    pairs: dict[tuple[bytes, bytes], int] = defaultdict(int)
    for word, count in words.items():
        for pair in pairwise(word):
            pairs[pair] += count
    if same < min(len(ours), len(theirs)) and pairs[ours[same]] != pairs[theirs[same]]:
        sys.exit(f"{tool} disagrees at merge {same + 1}: {ours[same]} {theirs[same]}, not a tie")
    made, also = ({left + right for left, right in merges} for merges in (ours, theirs))
    return (
        f"{tool}: {same} merges equal, then two pairs are equally frequent; "
        f"{len(made & also) / len(made):.2%} of the tokens are the same"
    )


def check(corpora_by_name: dict[str, Path], work: Path) -> None:
    """Stop unless the tools agree on the beginning of each corpus."""
    for name, path in corpora_by_name.items():
        sample = work / f"sample-{name}.txt"
        with path.open("rb") as file:
            sample.write_text(file.read(1_000_000).decode(errors="ignore"), newline="")
        case = Case("train", sample, name, 2, 3000)
        merges = {tool: merges_of(measure(tool, case)) for tool in TRAINERS}
        ours = merges.pop("lmlab")
        for tool, theirs in merges.items():
            print(f"{name}: {check_merges(sample, ours, theirs, tool)}")
        folder = make_vocabulary(sample, 3000, work / f"sample-{name}")
        case = Case("encode", sample, name, 2, 3000, folder)
        digests = {tool: measure(tool, case)["digest"] for tool in ENCODERS}
        if len(set(digests.values())) != 1:
            sys.exit(f"{name}: the ids differ: {digests}")
        print(f"{name}: the ids of {', '.join(digests)} are equal")


def make_vocabulary(corpus: Path, vocab_size: int, folder: Path) -> Path:
    """A vocabulary trained by us, in every format."""
    shutil.rmtree(folder, ignore_errors=True)
    vocab, merges = train_bpe(corpus, vocab_size + 1, [corpora.END])
    tokenizer = Tokenizer(vocab, merges, [corpora.END])
    tokenizer.save(folder)
    tokenizer.to_huggingface(folder / "tokenizer.json")
    tokenizer.to_tiktoken(folder / "ranks.tiktoken")
    return folder


def compare(case: Case, rounds: int, bar: "tqdm[Any]") -> dict[str, Runs]:
    """Let the tools take turns; one that has used up our patience sits the other rounds out."""
    tools = TRAINERS if case.task == "train" else ENCODERS
    runs = {tool: Runs() for tool in tools}
    for _ in range(rounds):
        for tool in tools:
            if sum(runs[tool].seconds) < PATIENCE:
                bar.set_postfix_str(f"{case.task} {case.name} x{case.threads} {tool}")
                answer = measure(tool, case)
                runs[tool].seconds.append(answer["seconds"])
                runs[tool].peaks.append(answer["peak"])
                runs[tool].answer = answer
            bar.update()
    if case.task == "encode" and len({run.answer["digest"] for run in runs.values()}) != 1:
        sys.exit(f"{case.name}: the ids differ")
    return runs


Results = list[tuple[Case, dict[str, Runs]]]


def table(results: Results, task: str) -> str:
    rows = []
    for case, runs in results:
        if case.task == task:
            for tool, run in runs.items():
                ratio = run.median / runs["lmlab"].median
                rows.append(
                    [
                        f"{case.name}, {case.megabytes:.1f} MB",
                        tool,
                        f"{case.vocab_size:,}",
                        str(case.threads),
                        f"{run.median:.2f}",
                        f"{case.megabytes / run.median:.1f}",
                        f"{ratio:.1f}" if tool != "lmlab" else "",
                        f"{statistics.median(run.peaks) / 1e6:.0f}",
                        str(len(run.seconds)),
                    ]
                )
    header = "text,tool,vocabulary,threads,seconds,MB/s,lmlab is faster by,peak MB,runs"
    return markdown(header.split(","), rows, text=2)


def plot(results: Results, path: Path) -> None:
    """Megabytes a second of each tool, training on the left, encoding on the right."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(13, 4.5), layout="constrained")
    for panel, task in zip(panels, ("train", "encode"), strict=True):
        tools = list(TRAINERS if task == "train" else ENCODERS)
        cases = [(case, runs) for case, runs in results if case.task == task]
        for index, tool in enumerate(tools):
            places = [
                i + (index - (len(tools) - 1) / 2) * 0.8 / len(tools) for i in range(len(cases))
            ]
            speeds = [case.megabytes / runs[tool].median for case, runs in cases]
            bars = panel.bar(places, speeds, 0.8 / len(tools), label=tool)
            panel.bar_label(bars, [f"{speed:.3g}" for speed in speeds], fontsize=7)
        labels = [
            f"{case.name}\n{case.vocab_size // 1000}k"
            if task == "train"
            else f"{case.name}\n{case.threads} thread{'s' * (case.threads > 1)}"
            for case, _ in cases
        ]
        panel.set_xticks(range(len(cases)), labels, fontsize=8)
        panel.set_yscale("log")
        panel.set_ylabel("MB/s")
        panel.set_title({"train": "training, two threads", "encode": "encoding"}[task])
        panel.margins(y=0.12)  # room above the bars for the legend
        panel.legend(fontsize=8, ncols=len(tools), loc="upper right")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small corpora, one round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=float, default=25.6, help="of each corpus")
    parser.add_argument("--mixed-megabytes", type=float, default=400.0, help="of the large one")
    parser.add_argument("--text", type=Path, nargs="*", default=[], help="more corpora")
    parser.add_argument("--work", type=Path, default=ROOT / "data" / "benchmarks")
    parser.add_argument("--out", type=Path, default=ROOT / "experiments" / "tokenizer")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.megabytes, options.mixed_megabytes = 1, 2.0, 8.0

    paths = {
        name: corpora.write(name, options.work, int(options.megabytes * 1e6))
        for name in ("english", "code", "languages")
    } | {path.stem: path for path in options.text}
    mixed = corpora.write("mixed", options.work, int(options.mixed_megabytes * 1e6))
    check(paths, options.work)

    vocabulary = make_vocabulary(mixed, 32_000, options.work / "vocabulary")
    cases = [Case("train", path, name, 2, 10_000) for name, path in paths.items()]
    cases.append(Case("train", mixed, "mixed", 2, 32_000))
    for threads in (1, 2):
        cases += [
            Case("encode", path, name, threads, 32_000, vocabulary) for name, path in paths.items()
        ]
    measurements = sum(len(TRAINERS if case.task == "train" else ENCODERS) for case in cases)
    with tqdm(total=measurements * options.rounds, unit="run") as bar:
        results = [(case, compare(case, options.rounds, bar)) for case in cases]

    options.out.mkdir(parents=True, exist_ok=True)
    plot(results, options.out / "benchmark.png")
    where = machine(["fastokens", "rustbpe", "tiktoken", "tokenizers"])
    parts = [f"{where}.", "### Training", table(results, "train")]
    parts += ["### Encoding", table(results, "encode"), "![speed of each tool](benchmark.png)"]
    section = "\n\n".join(parts)
    put_section(options.out / "README.md", "benchmark", section)
    print(section)


if __name__ == "__main__":
    main()
