"""The job arrays of executor=slurm, with an sbatch that runs each element at once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from corpus import config, content, write_corpus

from lmlab.cleaning.run import clean
from tests_support import ROOT

SBATCH = """#!/bin/sh
for script; do :; done
array=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$script")
[ -z "$array" ] && { echo "Submitted batch job 1"; exit; }
for element in $(seq 0 "$array"); do
  SLURM_ARRAY_TASK_ID=$element SLURM_ARRAY_JOB_ID=1 SLURM_JOB_ID=1 RUN_OFFSET=0 \\
    SLURM_NODELIST=localhost SLURM_CPUS_PER_TASK=1 SLURM_MEM_PER_CPU=1 SLURM_NODEID=0 \\
    bash "$script" > "$script.$element.log" 2>&1 || exit 1
done
echo "Submitted batch job 1"
"""
SRUN = """#!/bin/sh
while [ "$1" != launch_pickled_pipeline ]; do shift; done
exec "$@"
"""
SCONTROL = """#!/bin/sh
echo localhost
"""
STEPS = ("~cleaning.steps.exact_lines", "~cleaning.steps.minhash")


@pytest.mark.slow
def test_arrays_do_all_tasks(tmp_path: Path) -> None:
    pytest.importorskip("datatrove")
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    for name, script in (("sbatch", SBATCH), ("srun", SRUN), ("scontrol", SCONTROL)):
        (bin_ / name).write_text(script)
        (bin_ / name).chmod(0o755)
    inputs, output = write_corpus(tmp_path / "in", files=3), tmp_path / "out"
    overrides = ("executor=slurm", "executor.partition=main", "executor.tasks=2")
    steps = ("~cleaning.steps.extract", "~cleaning.steps.language", *STEPS)
    command = [sys.executable, str(ROOT / "clean.py"), f"input='{inputs}'", f"output='{output}'"]
    done = subprocess.run(
        [*command, *steps, *overrides],
        env={**os.environ, "PATH": f"{bin_}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "submitted jobs 1, 1; the last writes the manifest\n"
    clean(config(inputs, tmp_path / "local", *STEPS), progress=False)
    assert content(output) == content(tmp_path / "local")
