"""Submitting a sweep of 100 jobs, beside hydra-submitit-launcher with the same sweep.

    python benchmarks/submission.py [--jobs 100] [--rounds 3]

Measured is the time from the start of the command to the moment `sbatch` is called, of which the
cluster's own time is no part: the `sbatch` here only writes down when that was. Ours has then
composed and checked every configuration, and returns; the other one would go on to wait for its
jobs and is ended. Both take turns, so that a busy machine slows both; medians are printed.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
PEER = f"""\
import hydra
from hydra.core.config_store import ConfigStore
from hydra_plugins.hydra_submitit_launcher.config import SlurmQueueConf
from lmlab.hydra_app import register_resolvers
from pathlib import Path

conf = Path({str(ROOT / "conf")!r})
register_resolvers(conf)
ConfigStore.instance().store(group="hydra/launcher", name="peer", node=SlurmQueueConf)
hydra.main(version_base="1.3", config_path=str(conf), config_name="config")(lambda cfg: None)()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    axis = f"seed=range({options.jobs})"
    ours = [str(ROOT / "train.py"), "-m", axis, "hydra/launcher=submitit_slurm"]
    with tempfile.TemporaryDirectory() as folder:
        peer = Path(folder) / "peer.py"
        peer.write_text(PEER)
        theirs = [str(peer), "-m", axis, "hydra/launcher=peer", "hydra/sweeper=basic"]
        times: dict[str, list[float]] = {"lmlab": [], "hydra-submitit-launcher": []}
        for _ in range(options.rounds):
            times["lmlab"].append(seconds_to_sbatch(ours))
            times["hydra-submitit-launcher"].append(seconds_to_sbatch(theirs))
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(f"seconds until sbatch, {options.jobs} jobs, median of {options.rounds} rounds")
    for name, median in medians.items():
        rounds = " ".join(f"{value:.1f}" for value in times[name])
        print(f"  {name:<24} {median:6.1f}   ({rounds})")
    print(f"  ratio {medians['hydra-submitit-launcher'] / medians['lmlab']:.1f}")


def seconds_to_sbatch(command: list[str]) -> float:
    """Run a command in an empty folder until it calls sbatch, and return how long that took."""
    with tempfile.TemporaryDirectory() as folder:
        called = Path(folder) / "called"
        scripts = {"sbatch": f"touch {called}; echo Submitted batch job 77", "srun": ":"}
        for name, line in scripts.items() | {("squeue", ":")}:
            (Path(folder) / name).write_text(f"#!/bin/sh\n{line}\n")
            (Path(folder) / name).chmod(0o755)
        path = f"{folder}:{os.environ['PATH']}"
        begun = time.perf_counter()
        with subprocess.Popen(
            [sys.executable, *command],
            cwd=folder,
            env=os.environ | {"PATH": path},
            stdout=subprocess.DEVNULL,
        ) as process:
            while not called.exists():
                if process.poll() is not None:
                    raise SystemExit(f"{command[0]} ended without calling sbatch")
                time.sleep(0.01)
            taken = time.perf_counter() - begun
            process.kill()
    return taken


if __name__ == "__main__":
    main()
