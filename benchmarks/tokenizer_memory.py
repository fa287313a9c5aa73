"""Peak memory of training and encoding against the size of the file.

    python benchmarks/tokenizer_memory.py    # 200 MB beside 2 GB, a few minutes, 4 GB of disk

Each measurement is a process of its own. The large file is the small one ten times over, so that
it has no pretoken that the small one lacks: what is left to grow with it is the text.
"""

import argparse
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import corpora  # noqa: E402
from benchmarks.peers import in_own_process  # noqa: E402
from benchmarks.tables import machine, markdown, put_section  # noqa: E402

from lmlab.tokenizer import Tokenizer, train_bpe  # noqa: E402

VOCAB_SIZE = 32_000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=float, default=200.0, help="of the small file")
    parser.add_argument("--work", type=Path, default=ROOT / "data" / "benchmarks")
    parser.add_argument("--out", type=Path, default=ROOT / "experiments" / "tokenizer")
    options = parser.parse_args()
    small = corpora.write("mixed", options.work, int(options.megabytes * 1e6))
    large = small.with_name(f"{small.stem}-tenfold.txt")
    with large.open("wb") as file:
        for _ in range(10):
            with small.open("rb") as source:
                shutil.copyfileobj(source, file)
    folder = options.work / "memory-vocabulary"
    vocab, merges = train_bpe(small, VOCAB_SIZE, [corpora.END])
    Tokenizer(vocab, merges, [corpora.END]).save(folder)

    rows = []
    for path in (small, large):
        for task in ("train", "encode_file"):
            answer = in_own_process(
                task=task,
                tool="lmlab",
                threads=2,
                path=str(path),
                vocab_size=VOCAB_SIZE,
                folder=str(folder),
            )
            size = path.stat().st_size / 1e6
            figures = [f"{size:,.0f}", f"{answer['seconds']:.1f}", f"{answer['peak'] / 1e6:.0f}"]
            rows.append([task, *figures])
    large.unlink()
    rows.sort(key=lambda row: row[0])
    table = markdown(["work", "file MB", "seconds", "peak MB"], rows)
    put_section(options.out / "README.md", "memory", f"{machine()}.\n\n{table}")
    print(table)


if __name__ == "__main__":
    main()
