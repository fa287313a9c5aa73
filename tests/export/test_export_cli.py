"""The commands `lmlab export` and `lmlab import`."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from export_shapes import foreign, save

from lmlab.cli import main
from lmlab.tokenizer import Tokenizer
from lmlab.tokenizer.bpe import byte_tokenizer

Train = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def folder(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of transformers."""
    return save(foreign("llama"), tokenizer, tmp_path_factory.mktemp("models") / "tiny llama")


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    """A run."""
    output = folder.parent / "run"
    assert main(["import", str(folder), "--output", str(output)]) == 0
    return output


def test_import_says_what_it_made(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["import", str(folder)]) == 0
    (made,) = (tmp_path / "runs" / "tiny_llama").iterdir()
    shown = capsys.readouterr()
    assert shown.out.startswith(f"{made.relative_to(tmp_path)}: LlamaForCausalLM from {folder}\n")
    assert "checked with transformers: the same tokens; logits differ by at most" in shown.out
    assert shown.err == ""


@pytest.mark.parametrize("to", ["huggingface", "gguf"])
def test_export_says_what_it_wrote(
    to: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "a place"
    given = ["export", str(run), "--to", to, str(target)]
    assert main(given) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith(f"{target}: ")
    assert "MB" in shown.out
    assert main(given) == 1
    assert capsys.readouterr().err.startswith(f"lmlab: {target} exists; ")
    assert main([*given, "--force"]) == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["RUN", "--to", "huggingface", "OUT", "--dtype", "q8_0"], "--dtype q8_0 is not known"),
        (["RUN", "--to", "onnx", "OUT"], "invalid choice: 'onnx'"),
        (["FOLDER", "--to", "gguf", "OUT"], "is not a run directory"),
        (["nowhere", "--to", "gguf", "OUT"], "nowhere"),
        (["RUN", "--to", "gguf", "RUN/config.yaml/x"], "config.yaml"),
    ],
)
def test_mistakes_are_one_line(
    given: list[str],
    message: str,
    run: Path,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {"RUN": str(run), "FOLDER": str(folder), "OUT": str(tmp_path / "out")}
    words = [places.get(word, word.replace("RUN/", f"{run}/")) for word in given]
    capsys.readouterr()
    assert main(["export", *words]) == 1
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_an_output_of_import_that_exists(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is no --force to replace it."""
    assert main(["import", str(folder), "--output", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"lmlab: {tmp_path} exists; give another place\n"


def test_a_place_that_cannot_be_written_is_named_as_given(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    for to in ("huggingface", "gguf"):
        assert main(["export", str(run), "--to", to, "/proc/out"]) == 1
        assert capsys.readouterr().err == "lmlab: No such file or directory: /proc/out\n"


@pytest.mark.parametrize("name", ["transformers", "safetensors", "gguf"])
def test_a_missing_package_is_one_line(
    name: str,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    to = "gguf" if name == "gguf" else "huggingface"
    assert main(["export", str(run), "--to", to, str(tmp_path / "out")]) == 1
    message = f"lmlab: this needs the package {name}; install it with pip install 'lmlab[export]'\n"
    assert capsys.readouterr().err == message


def test_an_imported_run_is_trained_further_but_not_resumed(
    run: Path, train: Train, corpus: Path, tmp_path: Path
) -> None:
    data = ("data=text", f"data.paths=['{corpus}']", r"data.separator='\n\n'")
    steps = ("budget.steps=1", "trainer.batch_size=2", "trainer.eval_windows=2")
    device = ("trainer.device=cpu", "task.sample.tokens=4", "hydra.run.dir=child")
    done = train(f"init_from={run}", *data, *steps, *device)
    assert done.returncode == 0, done.stderr
    lineage = json.loads((tmp_path / "child" / "lineage.json").read_text())
    assert lineage["parent"] == str(run)
    resumed = train(f"resume={run}")
    assert resumed.returncode == 1
    assert "was imported and has no optimizer" in resumed.stderr
    assert resumed.stderr.count("Traceback") == 0
    optimizer = train(f"init_from={run}", "init_optimizer=true", *data, *steps)
    assert optimizer.returncode == 1
    assert "was imported and has no optimizer" in optimizer.stderr


def test_a_byte_tokenizer_goes_to_transformers(tmp_path: Path) -> None:
    folder = save(foreign("gpt2"), byte_tokenizer(["<|endoftext|>"]), tmp_path / "theirs")
    assert main(["import", str(folder), "--output", str(tmp_path / "run")]) == 0
    export = ["export", str(tmp_path / "run"), "--to", "huggingface", str(tmp_path / "back")]
    assert main(export) == 0
