"""Edits while jobs wait in the queue change nothing."""

import importlib.util
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from slurm_support import jobs_of, only_run, record, wait_for_state
from virtual_cluster import VirtualCluster, wait_until

from tests_support import ROOT

TRAIN = """\
import sys
sys.meta_path[:] = [finder for finder in sys.meta_path if "lmlab" not in type(finder).__module__]
sys.path.insert(0, {source!r})
from pathlib import Path
from lmlab.hydra_app import main
main(Path({conf!r}))
"""


def working_tree(folder: Path) -> Path:
    """Copy code and configuration, and return a train.py that uses them."""
    for name in ("src", "conf"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    native = importlib.util.find_spec("lmlab.tokenizer._core")
    assert native is not None
    assert native.origin is not None
    shutil.copy(native.origin, folder / "src" / "lmlab" / "tokenizer")
    train = folder / "train.py"
    train.write_text(TRAIN.format(source=str(folder / "src"), conf=str(folder / "conf")))
    return train


def test_edits_of_yaml_and_code_while_queued_change_nothing(
    cluster: VirtualCluster,
    submit: Callable[..., "subprocess.CompletedProcess[str]"],
    tmp_path: Path,
) -> None:
    tree = tmp_path / "tree"
    train = working_tree(tree)
    blocker = cluster.tell(
        *("sbatch", "--parsable", "-p", "high", "-N2", "--exclusive", "-o", "/dev/null"),
        *("--wrap", "sleep 300"),
    )
    wait_for_state(cluster, blocker, "RUNNING")
    (job,) = jobs_of(submit("model=tiny", train=train))
    run = only_run(tmp_path)
    assert cluster.state(job) == "PENDING"
    config = (run / "config.yaml").read_text()

    with (tree / "conf" / "config.yaml").open("a") as file:
        file.write("nonsense: true\n")
    task = tree / "src" / "lmlab" / "task" / "__init__.py"
    task.write_text("raise RuntimeError('edited while the job was waiting')\n")
    cluster.tell("scancel", blocker)

    wait_until((run / "result.json").exists, "the end of the run")
    assert record(run / "result.json")["status"] == "finished"
    assert (run / "config.yaml").read_text() == config
    wait_for_state(cluster, job, "COMPLETED")
