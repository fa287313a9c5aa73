"""Peak memory of preparing extreme corpora: many tiny documents, and one long one.

    python benchmarks/data_memory.py    # a few minutes, 1 GB of disk

Each measurement is a process of its own.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.peers import peak_memory  # noqa: E402
from benchmarks.tables import machine, markdown  # noqa: E402

from lmlab.data import prepare  # noqa: E402
from lmlab.data.config import TextConfig  # noqa: E402
from lmlab.tokenizer.config import ByteConfig  # noqa: E402

SEPARATOR = "|"
LINE = "The cat and the dog found some bones in the garden behind the house.\n"


def measure(path: Path) -> None:
    config = TextConfig(
        kind="text",
        cache_dir=str(path.parent / "cache"),
        paths=[str(path)],
        validation_paths=None,
        validation_fraction=0.05,
        format=None,
        separator=SEPARATOR,
        jsonl_field="text",
    )
    prepare(config, ByteConfig(kind="byte", special_tokens=("<|endoftext|>",)), progress=False)
    print(json.dumps(peak_memory()))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=int, default=304, help="of the long document")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        measure(options.one)
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, content, copies in (
            ("two-character documents", "".join(f"{i:02}|" for i in range(100)), 43_000),
            ("one document", LINE, options.megabytes * 1_000_000 // len(LINE)),
        ):
            path = Path(folder) / "corpus.txt"
            with path.open("w") as file:
                for _ in range(copies):
                    file.write(content)
            size = path.stat().st_size / 1e6
            command = [sys.executable, __file__, "--one", str(path)]
            answer = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
            rows.append([name, f"{size:,.0f}", f"{json.loads(answer) / 1e6:,.0f}"])
    print(f"{machine()}.\n\n{markdown(['corpus', 'MB', 'peak MB'], rows)}")


if __name__ == "__main__":
    main()
