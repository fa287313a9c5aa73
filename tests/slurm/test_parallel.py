"""Strategies on two nodes with two tasks each, on a real Slurm; and a node that is lost."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from slurm_support import (
    jobs_of,
    last_step,
    log_of,
    only_run,
    record,
    start_again,
    wait_for_state,
)
from virtual_cluster import VirtualCluster, wait_until

from tests_support import CONF, ROOT

Submit = Callable[..., "subprocess.CompletedProcess[str]"]
STRATEGIES = sorted({path.stem for path in (CONF / "parallel").glob("*.yaml")} - {"none"})
SGD = ("optimizer=sgd", "lr=0.1")  # AdamW makes large steps of small differences
TOGETHER = ("slurm.nodes=2", "slurm.tasks_per_node=2")


def alone(cluster: VirtualCluster, folder: Path, *overrides: str) -> "subprocess.Popen[bytes]":
    """Train in this test's folder in one process."""
    command = [sys.executable, str(ROOT / "train.py"), *overrides, "hydra.run.dir=alone"]
    return subprocess.Popen(command, cwd=folder, env=cluster.environment)


def test_each_strategy_equals_one_process(
    cluster: VirtualCluster, submit: Submit, tiny: list[str], tmp_path: Path
) -> None:
    accumulated = ("trainer.batch_size=8", "trainer.micro_batch_size=1")
    own = (*SGD, *accumulated, "model.num_heads=4")  # tp divides the heads by four
    single = alone(cluster, tmp_path, *tiny, *own)
    for name in STRATEGIES:
        jobs_of(submit(*TOGETHER, *own, f"parallel={name}", f"name={name}"))
    folder = tmp_path / "runs" / "sweeps"
    runs = {name: next(folder.glob(f"{name}/*/config.yaml")).parent for name in STRATEGIES}
    assert single.wait(120) == 0
    expected = record(tmp_path / "alone" / "result.json")["val_loss"]
    for name, run in runs.items():
        wait_until((run / "result.json").exists, f"the end of {name}", 300)
        assert record(run / "result.json")["val_loss"] == pytest.approx(expected, rel=1e-6), name


def test_a_lost_node_costs_the_steps_since_the_checkpoint(
    cluster: VirtualCluster, submit: Submit, tiny: list[str], tmp_path: Path
) -> None:
    """Slurm puts the job back; with one command it starts on the node that is left."""
    own = (*SGD, "budget.steps=60", "trainer.checkpoint_every=10", "trainer.eval_every=1")
    (job,) = jobs_of(submit(*TOGETHER, *own, "parallel=fsdp"))
    run = only_run(tmp_path)
    wait_until(lambda: list((run / "checkpoints").glob("step_*")), "a checkpoint")
    cluster.lose("localhost")
    try:
        wait_for_state(cluster, job, "PENDING")
        assert last_step(run) < 60
        cluster.tell("scontrol", "update", f"JobId={job}", "NumNodes=1", "NumTasks=2")
        start_again(cluster, job)
        wait_until((run / "result.json").exists, "the end of the run")
    finally:
        cluster.restore("localhost")
    assert "resuming after step" in log_of(run)
    assert alone(cluster, tmp_path, *tiny, *own).wait(120) == 0
    losses = [record(path / "result.json")["val_loss"] for path in (run, tmp_path / "alone")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
