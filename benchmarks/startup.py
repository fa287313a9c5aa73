"""The time until the command line answers, beside `import hydra`.

    python benchmarks/startup.py [--rounds 15] [--entry train.py]

Every round starts each command once, in an empty folder, so that a busy machine slows all alike.
Printed are medians in milliseconds, and their ratio to the median of `python -c "import hydra"`.

On two busy CPU cores, Python 3.11 (medians of 7 and of 5 rounds), before and after configuration
classes were built on first use, with their help texts read on demand:

| command | before | after |
| --- | ---: | ---: |
| `train.py --help` | 2.5x | 2.0x |
| `train.py lr=x` | 3.8x | 2.8x |
| `train.py model=nope` | 3.5x | 2.2x |
| `train.py --cfg job` | 3.9x | 2.6x |
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
COMMANDS = {
    "train.py --help": ["--help"],
    "train.py lr=x": ["lr=x"],
    "train.py model=nope": ["model=nope"],
    "train.py --cfg job": ["--cfg", "job"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--entry", type=Path, default=ROOT / "train.py", help="the train.py to run")
    options = parser.parse_args()
    entry = str(options.entry.resolve())
    commands = {"import hydra": ["-c", "import hydra"]}
    commands |= {name: [entry, *arguments] for name, arguments in COMMANDS.items()}
    times: dict[str, list[float]] = {name: [] for name in commands}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.rounds):
            for name, command in commands.items():
                times[name].append(milliseconds(command, folder))
    medians = {name: statistics.median(measured) for name, measured in times.items()}
    print(f"milliseconds, median of {options.rounds} rounds; ratio to `import hydra`")
    for name, median in medians.items():
        print(f"  {name:<22} {median:6.0f}  {median / medians['import hydra']:5.2f}x")


def milliseconds(command: list[str], folder: str) -> float:
    """Run Python with some arguments, and return how long it took."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, check=False)
    return 1000 * (time.perf_counter() - start)


if __name__ == "__main__":
    main()
