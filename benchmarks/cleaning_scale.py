"""Cleaning of much synthetic text: memory by the size of the input, throughput by cores.

    python benchmarks/cleaning_scale.py [--gigabytes 1 3 10] [--workers 1 2] [--directory DIR]

The text is made on the spot: documents of random words, a tenth of them near-duplicates, as JSON
lines compressed by zstd, 64 MB of text a file. The recipe is the course's without extraction and
language. Memory is the largest sum of the processes' own pages (USS), looked at every 0.2 s.
"""

import argparse
import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import zstandard

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.tables import machine, markdown  # noqa: E402

FILE_BYTES = 64_000_000
STOP_WORDS = ["the", "be", "to", "of", "and", "that", "have", "with"]


def write_file(path: Path, seed: int) -> None:
    """Write 64 MB of text as JSON lines."""
    generator = random.Random(seed)
    names = random.Random(0)
    words = [f"word{names.randrange(10**6):x}" for _ in range(20_000)] + STOP_WORDS * 400
    size, held = 0, [""]
    with path.open("wb") as file, zstandard.ZstdCompressor(1).stream_writer(file) as out:
        while size < FILE_BYTES:
            if generator.random() < 0.1:
                text = generator.choice(held) + " and that is new"
            else:
                lines = (" ".join(generator.choices(words, k=20)) + "." for _ in range(20))
                text = "\n".join(lines)
                held = [*held[-50:], text]
            size += len(text)
            out.write(json.dumps({"text": text}).encode() + b"\n")


def run(inputs: Path, files: int, output: Path, workers: int) -> tuple[float, float]:
    """Clean the first files and return seconds and the peak of memory in MB."""
    shutil.rmtree(output, ignore_errors=True)
    named = ",".join(str(path) for path in sorted(inputs.iterdir())[:files])
    command = [sys.executable, str(ROOT / "clean.py"), f"input=[{named}]", f"output={output}"]
    recipe = ["~cleaning.steps.extract", "~cleaning.steps.language", f"executor.workers={workers}"]
    start, peak = time.monotonic(), 0.0
    process = subprocess.Popen(
        [*command, *recipe], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while process.poll() is None:
        total = 0
        try:
            family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(True)]
        except psutil.Error:
            continue
        for member in family:
            try:
                total += member.memory_full_info().uss
            except psutil.Error:
                continue
        peak = max(peak, total / 1e6)
        time.sleep(0.2)
    if process.returncode:
        raise SystemExit(f"clean.py failed: {' '.join(command)}")
    return time.monotonic() - start, peak


def main() -> None:
    """Print throughput and memory."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gigabytes", type=float, nargs="+", default=[1, 3, 10])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, os.cpu_count() or 1])
    parser.add_argument("--directory", type=Path, default=None, help="a disk with as much room")
    options = parser.parse_args()
    counts = [max(1, round(size * 1e9 / FILE_BYTES)) for size in options.gigabytes]
    with tempfile.TemporaryDirectory(dir=options.directory) as folder:
        inputs, output = Path(folder, "in"), Path(folder, "out")
        inputs.mkdir()
        jobs = [(inputs / f"{number:05d}.jsonl.zst", number) for number in range(max(counts))]
        with multiprocessing.Pool() as pool:
            pool.starmap(write_file, jobs, chunksize=1)
        print(f"{machine()}\n", flush=True)
        rows = []
        for workers in options.workers:
            for count in counts:
                seconds, peak = run(inputs, count, output, workers)
                size = count * FILE_BYTES / 1e9
                speed = 1e3 * size / seconds
                rows.append(
                    [str(workers), f"{size:.2f}", f"{seconds:.0f}", f"{speed:.1f}", f"{peak:,.0f}"]
                )
                print(" ".join(rows[-1]), file=sys.stderr, flush=True)
    print(markdown(["workers", "GB of text", "seconds", "MB/s", "peak MB"], rows))


if __name__ == "__main__":
    main()
