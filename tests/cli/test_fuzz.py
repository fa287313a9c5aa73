"""No command line ends in a traceback, in several lines on stderr, or leaves a file behind."""

import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lmlab.task
from lmlab import cli, hydra_app
from lmlab.config import RunConfig
from lmlab.schema import classes_at, keys_at
from tests_support import CONF, ROOT

REPEATABLE = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def paths(prefix: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield every key of the configuration."""
    for key in keys_at(RunConfig, prefix):
        yield ".".join((*prefix, key))
        if classes_at(RunConfig, (*prefix, key)):
            yield from paths((*prefix, key))


GROUPS = [str(path.relative_to(CONF)) for path in sorted(CONF.rglob("*")) if path.is_dir()]
KEYS = [
    *paths(),
    *GROUPS,
    "experiment",
    "sweep",
    "hydra.run.dir",
    "nope",
    "model.nope",
    "",
    "a.b@c",
]
ODD = ["99999999999999999999999", "-1", "1e400", "1e308", "-1e-400", "nan", "-inf", "inf", "", "0"]
ODD += ["null", "true", "[]", "[1,[2]]", "{}", "{a:1}", "{a:{b:null}}", "${lr}", "${nope}", "${a"]
ODD += [
    "${oc.env:NOPE}",
    "${lr:1}",
    "${.}",
    "${seed",
    "'",
    "'x",
    '"a',
    "[",
    "]",
    "{",
    "}",
    "(",
    "\\",
]
ODD += [
    "é",
    "\u200d",
    "\ud800",
    "日本",
    "a b",
    "\n",
    "\t",
    "1,2",
    "range(3)",
    "choice(a,b)",
    "=",
    "==3",
]
ODD += [
    "../x",
    "/dev/null",
    "x" * 5000,
    "tiny",
    "full",
    "bpe_4k",
    "default",
    "@",
    "~",
    "#",
    "1_000",
    "???",
]
FLAGS = [
    "--cfg=job",
    "--cfg",
    "--resolve",
    "--info",
    "--hydra-help",
    "-c",
    "--package=nope",
    "--nope",
]
FLAGS += [
    "--config-name=nope",
    "--config-dir=nope",
    "--config-path=nope",
    "-cd",
    "-cn",
    "--version",
]
FLAGS += ["--shell-completion", "--help", "-h", "--run", "-r", "--", "-", "--cfg=nope", "-x=1"]

values = st.sampled_from(ODD) | st.text(max_size=8)
overrides = st.builds(
    "{}{}={}".format, st.sampled_from(["", "", "", "+", "++", "~"]), st.sampled_from(KEYS), values
) | st.builds("~{}".format, st.sampled_from(KEYS))
lines = st.lists(overrides, min_size=1, max_size=3) | st.lists(
    overrides | st.sampled_from(FLAGS), min_size=1, max_size=3
)


@pytest.fixture
def nothing_trains(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(lmlab.task, "run", lambda config, directory: None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setattr(sys, "argv", ["train.py"])


@REPEATABLE
@given(line=lines)
def test_train_ends_in_one_line(
    nothing_trains: None, tmp_path: Path, capfd: pytest.CaptureFixture[str], line: list[str]
) -> None:
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        os.chdir(folder)
        with pytest.raises(SystemExit) as ended:
            hydra_app.main(CONF, line)
        left = list(Path(folder).iterdir())
        os.chdir(tmp_path)
    logging.getLogger().handlers.clear()  # of `--info`, on a stream that pytest closes
    printed = capfd.readouterr()
    assert ended.value.code in (0, 1, 2, None)
    assert "Traceback" not in printed.err
    if ended.value.code == 1:
        assert len(printed.err.splitlines()) == 1, printed.err
        assert left == []


words = st.sampled_from(["account", "tokenizer", "runs", "report", "cancel", "train", "--json"])
words |= st.sampled_from(
    ["--vocab-size", "--mfu", "--peak", "-1", "1e999", "nan", "--help", "nope"]
)


@REPEATABLE
@given(line=st.lists(words | values | overrides, max_size=4))
def test_every_command_ends_in_one_line(
    nothing_trains: None, capfd: pytest.CaptureFixture[str], line: list[str]
) -> None:
    try:
        code = cli.main(line)
    except SystemExit as ended:
        code = ended.code
    logging.getLogger().handlers.clear()  # of `--info`, on a stream that pytest closes
    printed = capfd.readouterr()
    assert code in (0, 1, 2, None)
    assert "Traceback" not in printed.err
    assert code != 1 or len(printed.err.splitlines()) == 1, printed.err


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--cfg", "job"], ["-m", "--cfg", "job", "seed=range(30)"]],
    ids=" ".join,
)
def test_a_reader_may_stop_early(tmp_path: Path, arguments: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, str(ROOT / "train.py"), *arguments]
    done = subprocess.run(command, cwd=tmp_path, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")
