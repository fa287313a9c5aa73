"""What a tokenizer learns from its text, and what it costs on another's.

    python experiments/tokenizer/run.py                       # installed text, a few minutes
    python experiments/tokenizer/run.py --vocab-size 10000 32000 \\
        --text tinystories=TinyStories-train.txt openwebtext=owt_train.txt \\
        --held-out TinyStories-valid.txt owt_valid.txt        # at full scale

Trains one tokenizer for each text, then measures on text held out: bytes per token of each
tokenizer on each text, the longest tokens, throughput and the time for the Pile, words out of
vocabulary, and the bytes that UTF-16 and UTF-32 would take.
"""

import argparse
import itertools
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks import corpora  # noqa: E402
from benchmarks.tables import machine, markdown, put_section  # noqa: E402

from lmlab.errors import UserError  # noqa: E402
from lmlab.files import is_plain_file  # noqa: E402
from lmlab.tokenizer import Tokenizer, WordTokenizer, train_bpe  # noqa: E402

PILE = 825e9  # bytes, Gao et al. 2020 (arXiv:2101.00027)
SAMPLE = 20_000_000  # characters that are enough for what is measured in plain Python


@dataclass(frozen=True)
class Text:
    """A corpus: what is trained on, and what is measured on."""

    name: str
    train: Path
    held_out: Path


@dataclass(frozen=True)
class Trained:
    """A tokenizer and how long it took."""

    tokenizer: Tokenizer
    seconds: float


def split(name: str, path: Path, work: Path) -> Text:
    """Hold out the last of every 20 documents."""
    train, held_out = work / f"{name}.train.txt", work / f"{name}.held-out.txt"
    with train.open("w", newline="") as most, held_out.open("w", newline="") as few:
        for number, document in enumerate(corpora.documents(path)):
            (few if number % 20 == 19 else most).write(document + corpora.END)
    if not held_out.stat().st_size:
        raise UserError(f"{path}: too few documents to hold some out; give --held-out")
    return Text(name, train, held_out)


def train(text: Text, vocab_size: int, work: Path) -> Trained:
    """Train on one text and save the tokenizer beside it."""
    start = time.perf_counter()
    vocab, merges = train_bpe(text.train, vocab_size, [corpora.END], progress=True)
    seconds = time.perf_counter() - start
    tokenizer = Tokenizer(vocab, merges, [corpora.END])
    tokenizer.save(work / text.name)
    return Trained(tokenizer, seconds)


def bytes_per_token(texts: Sequence[Text], trained: Sequence[Trained]) -> list[list[float]]:
    """A row for each tokenizer, a column for each text."""
    return [
        [t.held_out.stat().st_size / each.tokenizer.count_file(t.held_out) for t in texts]
        for each in trained
    ]


def crossed_table(
    texts: Sequence[Text], trained: Sequence[Trained], ratios: list[list[float]]
) -> str:
    """Each tokenizer on each text."""
    return markdown(
        ["tokenizer trained on", "vocabulary", *(f"on {text.name}" for text in texts)],
        [
            [text.name, f"{each.tokenizer.vocab_size:,}", *(f"{ratio:.2f}" for ratio in row)]
            for text, each, row in zip(texts, trained, ratios, strict=True)
        ],
    )


def longest_table(texts: Sequence[Text], trained: Sequence[Trained]) -> str:
    """The longest tokens that are words, which rulers of dashes are not."""
    rows = []
    for text, each in zip(texts, trained, strict=True):
        tokens = (token.decode(errors="replace") for token in each.tokenizer.vocab.values())
        words = {token for token in tokens if token.strip().isalpha()}
        longest = sorted(words, key=lambda word: (-len(word.encode()), word))[:5]
        rows.append([text.name, ", ".join(f"`{word}`" for word in longest)])
    return markdown(["tokenizer trained on", "longest words"], rows, text=2)


def speed_table(texts: Sequence[Text], trained: Sequence[Trained], work: Path) -> str:
    """Throughput with every core, file to file."""
    rows = []
    for text, each in zip(texts, trained, strict=True):
        size = text.train.stat().st_size
        start = time.perf_counter()
        each.tokenizer.encode_file(text.train, work / "ids.bin", progress=True)
        speed = size / (time.perf_counter() - start)
        figures = [size / 1e6, each.seconds, size / 1e6 / each.seconds, speed / 1e6]
        pile = f"{PILE / speed / 3600:.1f} h"
        rows.append([text.name, *(f"{figure:.1f}" for figure in figures), pile])
    header = ["text", "MB", "training s", "training MB/s", "encoding MB/s", "the Pile would take"]
    return markdown(header, rows)


def word_table(texts: Sequence[Text], trained: Sequence[Trained], ratios: list[list[float]]) -> str:
    """The word-level baseline with as many tokens as the BPE beside it."""
    rows = []
    for number, (text, each) in enumerate(zip(texts, trained, strict=True)):
        size = each.tokenizer.vocab_size
        baseline = WordTokenizer.train([sample(text.train)], size)
        coverage = baseline.coverage(sample(text.held_out))
        unknown, ratio = f"{coverage.unknown_share:.1%}", f"{coverage.bytes_per_token:.2f}"
        rows.append([text.name, unknown, ratio, f"{ratios[number][number]:.2f}"])
    header = ["text", "words out of vocabulary", "bytes per word", "bytes per BPE token"]
    return markdown(header, rows)


def unicode_table(texts: Sequence[Text]) -> str:
    """What a byte-level tokenizer would have to read in other encodings."""
    rows = []
    for text in texts:
        content = sample(text.held_out)
        encodings = [content.encode(name) for name in ("utf-8", "utf-16-le", "utf-32-le")]
        sizes = [f"{len(data) / len(content):.2f}" for data in encodings]
        zeros = [f"{data.count(0) / len(data):.0%}" for data in encodings]
        rows.append([text.name, *sizes, *zeros])
    names = ["UTF-8", "UTF-16", "UTF-32"]
    bytes_header = [f"bytes a character in {name}" for name in names]
    return markdown(["text", *bytes_header, *(f"zero bytes in {name}" for name in names)], rows)


def sample(path: Path) -> str:
    """The beginning of a text, without special tokens."""
    with path.open(encoding="utf-8", newline="") as file:
        return file.read(SAMPLE).replace(corpora.END, "\n")


def plot(names: Sequence[str], ratios: list[list[float]], path: Path) -> None:
    """A group of bars for each text, a bar for each tokenizer."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    width = 0.8 / len(names)
    for index, (name, row) in enumerate(zip(names, ratios, strict=True)):
        places = [text + (index - (len(names) - 1) / 2) * width for text in range(len(names))]
        bars = axes.bar(places, row, width, label=f"trained on {name}")
        axes.bar_label(bars, [f"{ratio:.2f}" for ratio in row], fontsize=8)
    axes.set_xticks(range(len(names)), names)
    axes.set_xlabel("held-out text")
    axes.set_ylabel("bytes per token")
    axes.legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Run the experiment and put its tables into the README."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--text",
        nargs="+",
        metavar="NAME=FILE",
        help="documents, separated by "
        f"{corpora.END} (default: installed English, code and translations)",
    )
    parser.add_argument(
        "--held-out",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="a file for each text (default: every 20th document)",
    )
    parser.add_argument("--vocab-size", nargs="+", type=int, default=[10_000], metavar="N")
    parser.add_argument("--megabytes", type=float, default=25.6, help="of each installed text")
    parser.add_argument("--work", type=Path, default=ROOT / "data" / "tokenizer-experiment")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        texts = chosen(options)
        sizes = itertools.cycle(options.vocab_size)
        trained = [
            train(text, size, options.work) for text, size in zip(texts, sizes, strict=False)
        ]
        ratios = bytes_per_token(texts, trained)
        tables = [
            "Bytes per token on held-out text:",
            crossed_table(texts, trained, ratios),
            "![bytes per token of each tokenizer on each text](bytes_per_token.png)",
            longest_table(texts, trained),
            speed_table(texts, trained, options.work),
            word_table(texts, trained, ratios),
            unicode_table(texts),
        ]
    except UserError as error:
        sys.exit(f"{error}")
    plot([text.name for text in texts], ratios, options.out / "bytes_per_token.png")
    section = "\n\n".join([f"{machine()}.", *tables])
    put_section(options.out / "README.md", "experiment", section)
    print(section)


def chosen(options: argparse.Namespace) -> list[Text]:
    """The texts that the command line asks for."""
    if options.text is None:
        size = int(options.megabytes * 1e6)
        named = {n: corpora.write(n, options.work, size) for n in ("english", "code", "languages")}
    else:
        named = {}
        for item in options.text:
            name, _, path = item.partition("=")
            if not path or not is_plain_file(Path(path)):
                raise UserError(f"--text {item}: write NAME=FILE, with a file that exists")
            named[name] = Path(path)
    if options.held_out is None:
        return [split(name, path, options.work) for name, path in named.items()]
    if len(options.held_out) != len(named):
        raise UserError(f"--held-out: give {len(named)} files, one for each text")
    for path in options.held_out:
        if not is_plain_file(path) or not path.stat().st_size:
            raise UserError(f"--held-out {path}: give a file that exists and holds text")
    return [
        Text(name, path, held_out)
        for (name, path), held_out in zip(named.items(), options.held_out, strict=True)
    ]


if __name__ == "__main__":
    main()
