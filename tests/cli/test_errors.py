"""Every mistake on the command line: one line, exit code 1, no traceback, nothing left behind."""

import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import hydra
import pytest
from omegaconf import OmegaConf
from packaging.version import Version

import lmlab.task
from lmlab import hydra_app

Train = Callable[..., subprocess.CompletedProcess[str]]
ROOT = Path(__file__).parents[2]

MISTAKES = {
    "misspelt key": (["model.d_modle=3"], "'model.d_modle': unknown key, did you mean 'd_model'?"),
    "added key": (["+trainer.batchsize=3"], "unknown key, did you mean 'batch_size'?"),
    "added group": (["+experimnt=x"], "unknown key, did you mean 'experiment'?"),
    "no experiment": (["experiment=nope"], "'cpu_scale'", "'architectures/", "'tinystories'"),
    "large seed": (["seed=99999999999999999999999"], "config error at 'seed': must be below 2**63"),
    "only dots": (["name=.."], "config error at 'name'"),
    "beyond float32": (["lr=1e300"], "config error at 'lr': must be <= 1e+30, got 1e+300"),
    "layers": (["model.num_layers=99999999999"], "model.num_layers': must be <= 10000, got 999"),
    "folders": (["name=a/b"], "'name': must be of letters, digits, '_', '-' and '.', got 'a/b'"),
    "no name": (["name="], "'name': must be of letters, digits, '_', '-' and '.', got ''"),
    "null group": (["logger=null"], "config error at 'logger': a group; give it one of its choi"),
    "number as a group": (["lr=1", "model/ffn=3"], "config error at 'model.ffn': a group; give it"),
    "null group in a sweep": (
        ["-m", "model=tiny,small", "logger=null"],
        "at 'logger': a group; giv",
    ),
    "swept number as a group": (["-m", "model=tiny,3"], "config error at 'model': a group; give"),
    "no key": (["=3"], "config error at '=3': has no key; write KEY=VALUE"),
    "nothing": (["~"], "config error at '~': has no key"),
    "removed key": (["~lr"], "config error at 'lr': every run needs it; leave out ~lr"),
    "removed group": (["~model"], "config error at 'model': every run needs it"),
    "text to be quoted": (
        ["data=text", "data.paths=[ä.txt, b]"],
        """cannot be read as an override""",
        """; put text in quotes: "data.paths=['ä.txt','b']\"""",
    ),
    "path to be quoted": (
        ["data.cache_dir=a = ü"],
        """config error at 'data.cache_dir=a = ü': """,
        """; put text in quotes: "data.cache_dir='a = ü'\"""",
    ),
    "unclosed list of runs": (
        ["resume=["],
        "config error at 'resume=[': cannot be read as an over",
    ),
    "run directory that is a file": (
        ["hydra.run.dir=/dev/null"],
        "the run directory cannot be /dev/null: a file is in its place; give another hydra.run.dir",
    ),
    "run directory in a file": (["hydra.run.dir=/dev/null/x"], "cannot be /dev/null/x: a file is"),
    "environment": (["lr=${oc.env:NOPE}"], "Environment variable 'NOPE' not found"),
    "name": (["name=${oc.env:NOPE}"], "Environment variable 'NOPE' not found"),
    "two modes": (["-m", "lr=1,2", "--run"], "--run and --multirun exclude each other"),
    "unknown flag": (["--nope"], "unknown option --nope (see"),
    "group as values": (["model={a:1}"], "'model': a group; give it one of its choices"),
    "group inside of one as values": (["model.ffn={gats:1}"], "'model.ffn.gats': unknown key"),
    "misspelt group": (["modle=tiny"], "'modle': unknown key, did you mean 'model'?"),
    "misspelt inner group": (["model/atention=full"], "did you mean 'attention'?"),
    "misspelt choice": (["model=tinny"], "'tinny' is not one of", "(did you mean 'tiny'?)"),
    "misspelt experiment": (["experiment=tinystory"], "(did you mean 'tinystories'?)"),
    "misspelt sweep": (["-m", "sweep=lr_tunning"], "(did you mean 'lr_tuning'?)"),
    "misspelt literal": (
        ["model.norm_placement=prre"],
        "config error at 'model.norm_placement': 'prre' is not one of "
        "'pre', 'post', 'double', 'none' (did you mean 'pre'?)",
    ),
    "range": (["optimizer.lr=-1.0"], "config error at 'optimizer.lr': must be > 0, got -1.0"),
    "text for a number": (["model.d_model=abc"], "must be a whole number, got 'abc'"),
    "number as text": (["model.d_model='64'"], "must be a whole number, got '64'"),
    "bool for a number": (
        ["seed=true"],
        "config error at 'seed': must be a whole number, got true",
    ),
    "null": (["optimizer.beta1=null"], "'optimizer.beta1': must be a number, got null"),
    "fraction of a step": (["budget.steps=1.5"], "'budget.steps': must be a whole number, got 1.5"),
    "foreign key": (["optimizer=sgd", "optimizer.beta1=0.5"], "optimizer.beta1"),
    "nesterov": (
        ["optimizer=sgd", "optimizer.momentum=0", "optimizer.nesterov=true"],
        "nesterov=true needs momentum > 0, got 0",
    ),
    "threads": (["trainer.num_threads=100000"], "'trainer.num_threads': must be <= 1024"),
    "heads": (["model.num_heads=7"], "num_heads=7 does not divide d_model="),
    "micro batches": (["trainer.micro_batch_size=7"], "micro_batch_size=7 does not divide"),
    "device name": (["trainer.device=gpu"], "'gpu' is not auto, cpu, mps, cuda or cuda:N"),
    "cannot be parsed": (["lr==3"], "config error at 'lr==3': cannot be read as an override"),
    "sweep without -m": (
        ["sweep=lr_tuning"],
        "sweep=lr_tuning takes effect only with -m: python train.py -m sweep=lr_tuning",
    ),
    "launcher without -m": (["hydra/launcher=submitit_local"], "takes effect only with -m"),
    "slurm without a launcher": (
        ["slurm.partition=gpu"],
        "config error at 'slurm.partition': takes effect only with -m hydra/launcher=submitit_slur",
    ),
    "slurm with the default launcher": (
        ["-m", "lr=1,2", "+slurm.extra.mail-type=END"],
        "'slurm.extra.mail-type': takes effect only with -m hydra/launcher=submitit_slurm; ",
    ),
    "slurm in one process": (
        ["-m", "slurm.gpus_per_node=1"],
        "'slurm.gpus_per_node': takes effect only with -m hydra/launcher=submitit_slurm or submi",
    ),
    "slurm in processes": (
        ["-m", "hydra/launcher=submitit_local", "slurm.timeout_min=7"],
        "'slurm.timeout_min': takes effect only with -m hydra/launcher=submitit_slurm; add that",
    ),
    "directory of a run with -m": (
        ["-m", "hydra.run.dir=here", "lr=1,2"],
        "config error at 'hydra.run.dir': takes effect only without -m; the runs of a sweep are in",
    ),
    "directory of a sweep without -m": (
        ["hydra.sweep.dir=here"],
        "config error at 'hydra.sweep.dir': takes effect only with -m; a single run is in hydra",
    ),
    "data of sft": (
        ["task=sft", "tokenizer=byte", "task.examples.paths=[x]", "data=text", "data.paths=[y]"],
        "config error at 'data': task=sft reads task.examples instead; leave it out",
    ),
    "data of grpo": (
        ["task=grpo", "data.cache_dir=x"],
        "config error at 'data.cache_dir': task=grpo reads task.problems instead; leave it out",
    ),
    "windows of sft": (
        ["task=sft", "tokenizer=byte", "task.examples.paths=[x]", "trainer.eval_windows=8"],
        "config error at 'trainer.eval_windows': task=sft evaluates all examples that are held out",
    ),
    "windows of grpo": (
        ["task=grpo", "trainer.eval_windows=8"],
        "'trainer.eval_windows': task=grpo reads task.evaluation.problems instead; leave it out",
    ),
    "rise of grpo": (
        ["task=grpo", "trainer.max_loss_rise=1"],
        "'trainer.max_loss_rise': the loss of task=grpo need not fall; leave it out",
    ),
    "resume of nothing": (["resume=nowhere"], "is not a run directory: it has no config.yaml"),
    "no folder to be made": (["-m", "hydra.sweep.dir=/dev/null/x"], ": /dev/null/x"),
    "no folder there": (["-m", "hydra.sweep.dir=/proc/xx"], ": /proc/xx"),
    "job 2 of 2": (["-m", "lr=1e-3,-1"], "config error at 'lr': must be > 0, got -1"),
}


@pytest.mark.parametrize("arguments_and_texts", MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_one_line(
    train: Train, tmp_path: Path, arguments_and_texts: tuple[list[str], str]
) -> None:
    arguments, *texts = arguments_and_texts
    done = train(*arguments)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert all(text in done.stderr for text in texts), done.stderr
    assert done.stdout == ""
    kept = [path for path in tmp_path.rglob("*") if path.is_dir() and path.name != "runs"]
    sweep = tmp_path / "runs" / "sweeps"  # made by Hydra's sweeper before it launches anything
    assert set(kept) <= {sweep, sweep / "default"}, "a run directory was left behind"


def test_an_experiment_without_package_line(tmp_path: Path) -> None:
    """A file that lands under its own key would train the default; a copy of the tree shows it."""
    for folder in ("conf", "experiments", "sweeps"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    (tmp_path / "experiments").unlink()
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "forgot.yaml").write_text("lr: 1.0\n")
    (tmp_path / "conf").unlink()
    subprocess.run(["cp", "-r", str(ROOT / "conf"), str(tmp_path / "conf")], check=True)
    (tmp_path / "train.py").write_text((ROOT / "train.py").read_text())
    done = subprocess.run(
        [sys.executable, "train.py", "experiment=forgot"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "config error at 'experiment': unknown key; "
        "is '# @package _global_' missing at the top of the file?"
    ]


@pytest.mark.parametrize("arguments", [["--help"], ["--cfg", "job"], ["model.d_modle=3"], ["lr=x"]])
def test_answers_come_without_torch(tmp_path: Path, arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", str(ROOT / "train.py"), *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "hydra" in imported
    assert not imported & {"torch", "numpy", "matplotlib", "plotly", "wandb"}


def test_help_names_every_group_and_key(train: Train) -> None:
    text = train("--help").stdout
    of_clean = {ROOT / "conf" / "cleaning", ROOT / "conf" / "executor"}
    for group in {path for path in (ROOT / "conf").rglob("*") if path.is_dir()} - of_clean:
        assert f"  {group.relative_to(ROOT / 'conf')} " in text
    for words in ("trainer.batch_size", "experiment", "sweep", "python train.py -m"):
        assert words in text


@pytest.mark.parametrize("flags", [[], ["hydra.verbose=false"]])
def test_an_error_of_the_task_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flags: list[str]
) -> None:
    """Also one that OmegaConf raises: it is a fault of the code, not of the command line."""

    def broken(config: object, directory: object) -> None:
        OmegaConf.create({"a": "${nope}"}).a  # noqa: B018

    monkeypatch.setattr(lmlab.task, "run", broken)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["train.py"])
    with pytest.raises(Exception, match="nope"):
        hydra_app.main(ROOT / "conf", flags)


@pytest.mark.parametrize(
    ("script", "module"),
    [("train", "hydra_app"), ("clean", "clean_app"), ("src/lmlab/cli", "accounting.cli")],
)
def test_ctrl_c_while_modules_are_loaded_is_quiet(
    monkeypatch: pytest.MonkeyPatch, script: str, module: str
) -> None:
    class Interrupting:
        @staticmethod
        def find_spec(name: str, path: object, target: object = None) -> None:
            if name == f"lmlab.{module}":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, f"lmlab.{module}", raising=False)
    monkeypatch.setattr("sys.meta_path", [Interrupting, *sys.meta_path])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / f"{script}.py"), run_name="__main__")
    assert ended.value.code == 130


def test_hydra_is_a_version_that_these_plugins_were_tested_with() -> None:
    """They import `hydra._internal`, which a minor release may change.

    With a newer one check the overridden methods (BasicSweeper.split_arguments, ConfigSource,
    SearchPathPlugin), `get_args_parser` in lmlab/flags.py, `load_sweep_config` in
    lmlab_launcher/_composition.py, then raise this bound and the one in pyproject.toml.
    """
    assert Version("1.3.8") <= Version(hydra.__version__) < Version("1.4")
