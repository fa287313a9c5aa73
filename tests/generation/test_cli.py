"""`lmlab generate`: what it prints, and how it refuses what it cannot do."""

import gzip
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import lmlab
import lmlab.errors
from lmlab.cli import main
from lmlab.generation import settings
from lmlab.generation.options import Options

CONTEXT = 32
Captured = pytest.CaptureFixture[str]


def generated(capsys: Captured, *arguments: object) -> tuple[str, str]:
    """Run the command, which succeeds; return stdout and stderr."""
    code = main(["generate", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert code == 0, err
    return out, err


def objects(capsys: Captured, *arguments: object) -> list[dict[str, Any]]:
    out, _ = generated(capsys, *arguments, "--json")
    return [json.loads(line) for line in out.splitlines()]


def give_input(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


@torch.no_grad()
def likeliest(run: lmlab.TrainedRun, prompt: str, count: int) -> list[int]:
    """The definition of temperature 0, without the engine."""
    ids = list(prompt.encode())
    for _ in range(count):
        logits = run.model(torch.tensor([ids[-CONTEXT:]]))[0, -1, :257]
        ids.append(int(logits.argmax()))
    return ids[-count:]


def test_a_prompt_and_its_continuation(trained: Path, capsys: Captured) -> None:
    flags = (trained, "--prompt", "the old ", "--temperature", 0, "--max-new-tokens", 40)
    out, err = generated(capsys, *flags)
    expected = likeliest(lmlab.load(trained), "the old ", 40)
    assert out == "the old " + bytes(expected).decode(errors="replace") + "\n"
    assert re.fullmatch(r"lmlab: 40 tokens in .* tokens/s\n", err)
    assert generated(capsys, *flags, "--stream")[0] == out
    (row,) = objects(capsys, *flags)
    assert list(row) == ["prompt", "text", "finish_reason", "tokens", "seed", "cropped"]
    assert (row["tokens"], row["finish_reason"], row["cropped"]) == (expected, "length", 0)
    assert row["prompt"] + row["text"] + "\n" == out


def test_samples_of_several_prompts_come_in_order(trained: Path, capsys: Captured) -> None:
    flags = [trained, "--prompt", "sea ", "--prompt", "the sun", "--samples", 3, "--seed", 5]
    flags += ["--max-new-tokens", 6, "--batch-size", 2]
    rows = objects(capsys, *flags)
    assert [row["prompt"] for row in rows] == ["sea "] * 3 + ["the sun"] * 3
    assert [row["seed"] for row in rows] == [5, 6, 7] * 2
    assert len({row["text"] for row in rows}) > 1
    alone = objects(capsys, trained, "--prompt", "the sun", "--seed", 6, "--max-new-tokens", 6)
    assert alone == [rows[4]]
    out, err = generated(capsys, *flags)
    titles = re.findall(r"^=== (.*) ===$", out, re.MULTILINE)
    assert titles == [f"prompt {p}, seed {s}" for p in (1, 2) for s in (5, 6, 7)]
    assert rows[0]["prompt"] + rows[0]["text"] in out
    assert "6 of 6 texts" in err


def test_the_function_gives_what_the_command_prints(trained: Path, capsys: Captured) -> None:
    run = lmlab.load(trained)
    row, *_ = objects(
        capsys, trained, "--prompt", "sun", "--max-new-tokens", 9, "--top-p", 0.9, "--top-k", 50
    )
    options: dict[str, Any] = {"max_new_tokens": 9, "top_p": 0.9, "top_k": 50, "dtype": "fp32"}
    assert run.generate("sun", **options).text == row["text"]
    assert "".join(run.stream("sun", **options)) == row["text"]
    several = run.generate(["sun", "moon"], samples=2, **options)
    assert [g.tokens for g in several[:1]] == [row["tokens"]]
    assert [g.options.seed for g in several] == [0, 1, 0, 1]
    with pytest.raises(lmlab.errors.UserError, match="needs a list of prompts"):
        run.generate("sun", samples=2)  # type: ignore[call-overload]
    with pytest.raises(lmlab.errors.UserError, match="top_p must be"):
        run.generate("sun", top_p=0)


def test_prompts_from_files(trained: Path, tmp_path: Path, capsys: Captured) -> None:
    texts = {
        "one.txt": b"the red\n",
        "windows.txt": b"\xef\xbb\xbfthe\r\nblue\r\n",
        "two.jsonl": b'{"prompt": "sea\\n", "id": 3}\n\n{"prompt": ""}\n',
    }
    for name, content in texts.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "packed.jsonl.gz").write_bytes(gzip.compress(b'{"prompt": "\xc3\xa9"}'))
    names = [*texts, "packed.jsonl.gz"]
    rows = objects(
        capsys, trained, "--max-new-tokens", 2, "--prompt-file", *(tmp_path / n for n in names)
    )
    assert [row["prompt"] for row in rows] == ["the red", "the\r\nblue", "sea\n", "", "é"]


def test_standard_input_is_one_prompt(
    trained: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_input(monkeypatch, "the\nsea é\n".encode())
    (row,) = objects(capsys, trained, "--max-new-tokens", 2)
    assert row["prompt"] == "the\nsea é"
    give_input(monkeypatch, b"")
    _, err = generated(capsys, trained, "--max-new-tokens", 2)
    assert "an empty prompt: the text begins a document\n" in err
    give_input(monkeypatch, b"caf\xe9 ")
    assert main(["generate", str(trained)]) == 1
    assert "standard input: invalid UTF-8 at byte 3" in capsys.readouterr().err


def test_what_is_left_out_of_a_long_prompt_is_said_once(trained: Path, capsys: Captured) -> None:
    long = "x" * 50 + "the old dog sails over the sea "
    flags = ["--max-new-tokens", 4, "--temperature", 0]
    out, err = generated(capsys, trained, "--prompt", long, *flags)
    assert out.startswith(long)
    line = "the prompt has 81 tokens, the context 32: only the last 32 are read"
    assert err.count(line) == 1
    row, short = objects(capsys, trained, "--prompt", long, "--prompt", long[-CONTEXT:], *flags)
    assert (row["cropped"], short["cropped"]) == (49, 0)
    assert row["tokens"] == short["tokens"]
    _, err = generated(capsys, trained, "--prompt", long, "--prompt", "y" * 40, *flags)
    assert err.count("2 prompts have up to 81 tokens") == 1


def test_the_end_token_and_stop_texts(trained: Path, capsys: Captured) -> None:
    flags = ["--max-new-tokens", 30, "--prompt", "<|endoftext|>the"]
    (row,) = objects(capsys, trained, *flags)
    run = lmlab.load(trained)
    assert run.tokenizer.encode("<|endoftext|>the")[0] == 256
    same = run.generate("<|endoftext|>the", max_new_tokens=30, dtype="fp32")
    assert same.prompt[0] == 256
    assert row["tokens"] == same.tokens
    stop = row["text"][5:7]
    (stopped,) = objects(capsys, trained, *flags, "--stop", "never there", "--stop", stop)
    assert stopped["text"] == row["text"][: row["text"].index(stop)]
    assert stopped["finish_reason"] == "stop"


@pytest.mark.parametrize("dtype", ["bf16", "int8"])
def test_the_loss_of_rounding_is_measured(
    trained: Path, tmp_path: Path, capsys: Captured, dtype: str
) -> None:
    flags = ["--prompt", "a", "--max-new-tokens", 3, "--dtype", dtype]
    number = r"[+-]0\.\d{4}, from (\d\.\d{4}) nats"
    _, err = generated(capsys, trained, *flags)
    found = re.search(rf"{dtype} changes the loss by {number} \(([\d,]+) held-out tokens\)", err)
    assert found, err
    measured = json.loads((trained / "result.json").read_text())["val_loss"]
    assert float(found[1]) == pytest.approx(measured, abs=0.1)

    copy = tmp_path / "copy"  # whose data are not there
    shutil.copytree(trained, copy)
    (copy / "data.json").unlink()
    _, err = generated(capsys, copy, *flags)
    assert re.search(rf"{dtype} changes the loss by {number} \(\d+ tokens that the model", err)


def test_a_terminal_gets_no_control_characters(
    trained: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = "red\x1b[31m\x9b\ttab\n"
    assert generated(capsys, trained, "--prompt", prompt)[0].startswith(prompt)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    shown = generated(capsys, trained, "--prompt", prompt)[0]
    assert shown.startswith("red\\x1b[31m\\x9b\ttab\n")
    assert "\x1b" not in shown


MISTAKES: dict[str, tuple[list[str], str]] = {
    "negative temperature": (["--temperature=-1"], "--temperature must be a number of at least 0"),
    "temperature nan": (["--temperature=nan"], "--temperature must be a number of at least 0"),
    "top-k 0": (["--top-k=0"], "--top-k must be an integer of at least 1"),
    "top-k text": (["--top-k=x"], "argument --top-k: must be a whole number, got 'x'"),
    "top-p": (["--top-p=1.5"], "--top-p must be a number above 0 and at most 1, got 1.5"),
    "min-p": (["--min-p=2"], "--min-p must be a number from 0 to 1"),
    "repetition": (["--repetition-penalty=0"], "--repetition-penalty must be a number above 0"),
    "no tokens": (["--max-new-tokens=0"], "--max-new-tokens must be an integer of at least 1"),
    "empty stop": (["--stop="], "--stop must be strings that are not empty"),
    "samples": (["--samples=0"], "--samples must be at least 1, got 0"),
    "batch": (["--batch-size=0"], "--batch-size must be at least 1, got 0"),
    "dtype": (["--dtype=fp16"], "argument --dtype: invalid choice: 'fp16'"),
    "device name": (["--device=gpu"], "device 'gpu' is not auto, cpu, mps, cuda or cuda:N"),
    "device": (["--device=cuda:99"], "device 'cuda:99' is not available"),
    "both": (["--prompt-file=a"], "--prompt and --prompt-file exclude each other"),
    "stream json": (["--stream", "--json"], "--stream and --json exclude each other"),
    "stream two": (["--stream", "--samples=2"], "--stream shows one text, not 2"),
    "surrogate": (["--prompt=caf\udce9"], "--prompt is not UTF-8 text at character 3"),
    "flag": (["--promt=x"], "unrecognized arguments: --promt=x"),
}


@pytest.mark.parametrize("flags_and_text", MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_one_line(
    trained: Path, capsys: Captured, flags_and_text: tuple[list[str], str]
) -> None:
    flags, text = flags_and_text
    assert main(["generate", str(trained), "--prompt=a", *flags]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"lmlab: {text}")


FILES: dict[str, tuple[bytes | None, str]] = {
    "missing.txt": (None, "missing.txt: cannot be read: No such file"),
    "binary.txt": (bytes(range(256)), "binary.txt: invalid UTF-8 at byte 128"),
    "latin1.txt": (b"caf\xe9", "latin1.txt: invalid UTF-8 at byte 3"),
    "nul.txt": (b"a\0b", "nul.txt: a NUL at character 1"),
    "archive.txt": (b"PK\x03\x04", "archive.txt: is a zip archive"),
    "cut.txt.gz": (gzip.compress(b"text", mtime=0)[:-4], "cut.txt.gz: damaged or cut short"),
    "empty.jsonl": (b"\n", "empty.jsonl: holds no prompts"),
    "field.jsonl": (b'{"text": "a"}', "field.jsonl:1: no field 'prompt' (there is 'text')"),
    "number.jsonl": (b'{"prompt": "a"}\n{"prompt": 3}', "number.jsonl:2: field 'prompt' holds 3"),
    "array.jsonl": (b'["a"]', "array.jsonl:1: no field 'prompt' (there is no object)"),
    "broken.jsonl": (b'{"prompt"', "broken.jsonl:1: not a JSON object"),
    "half.jsonl": (b'{"prompt": "\\ud800"}', "half.jsonl:1: field 'prompt' is not UTF-8 text"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_prompt_file_that_cannot_be_used_is_one_line(
    trained: Path, tmp_path: Path, capsys: Captured, name: str
) -> None:
    content, text = FILES[name]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert main(["generate", str(trained), "--prompt-file", str(tmp_path / name)]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert text in err


def test_what_is_no_trained_run_is_one_line(
    trained: Path, tmp_path: Path, capsys: Captured
) -> None:
    foreign, empty, other = (tmp_path / name for name in ("foreign", "empty", "other"))
    foreign.mkdir()
    (foreign / "config.yaml").write_text("model: {d_model: 3}\n")
    shutil.copytree(trained, empty)
    for path in (empty / "checkpoints").iterdir():
        path.unlink()
    shutil.copytree(trained, other)
    config = (other / "config.yaml").read_text()
    (other / "config.yaml").write_text(config.replace("d_model: 32", "d_model: 64"))
    damaged = tmp_path / "damaged"
    shutil.copytree(trained, damaged)
    for path in (damaged / "checkpoints").glob("step_*.pt"):
        path.write_bytes(b"no checkpoint")
    for path, text in {
        tmp_path / "nowhere": "does not exist; give a run directory or one of its checkpoints",
        tmp_path: "is not a run directory: it has no config.yaml",
        foreign: "config.yaml: not a configuration of a run: it lacks 'trainer'",
        empty: "has no checkpoint in checkpoints/",
        other: "'token_embedding.weight' has the shape (257, 32)",
        damaged: "is damaged",
        trained / "config.yaml": "config.yaml is not a checkpoint; expected a name like",
    }.items():
        assert main(["generate", str(path), "--prompt", "a"]) == 1
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert text in err, path


def process(*arguments: object, **options: Any) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "lmlab.cli", "generate", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, stdin=subprocess.DEVNULL, **pipes | options)


def test_a_reader_that_leaves_ends_it_silently(trained: Path) -> None:
    flags = ("--prompt", "a", "--stream", "--max-new-tokens", 10**7, "--temperature", 0)
    with process(trained, *flags) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        assert running.stdout.read(5)
        running.stdout.close()
        assert running.wait(60) == 0
        assert running.stderr.read() == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_line(trained: Path) -> None:
    with (
        open("/dev/full", "w") as full,  # noqa: PTH123
        process(trained, "--prompt", "a", stdout=full) as running,
    ):
        assert running.stderr is not None
        err = running.stderr.read()
        assert running.wait(60) == 1
    assert err == "lmlab: No space left on device\n"


def test_ctrl_c_during_a_batch_prints_what_is_finished(trained: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": f"{i} "}) + "\n" for i in range(5000)))
    flags = ("--prompt-file", prompts, "--max-new-tokens", 30, "--json")
    with process(trained, *flags) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        lines = [running.stdout.readline() for _ in range(3)]
        os.kill(running.pid, signal.SIGINT)
        lines += running.stdout.read().splitlines()
        err = running.stderr.read()
        assert running.wait(60) == 130
    rows = [json.loads(line) for line in lines]
    assert 3 <= len(rows) < 5000
    assert all(row["finish_reason"] in ("length", "stop") for row in rows)
    finished = re.search(r"lmlab: ([\d,]+) of 5,000 texts", err)
    assert finished is not None
    assert int(finished[1].replace(",", "")) == len(rows)
    assert err.endswith("lmlab: interrupted\n")


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (MemoryError, ""),
        (torch.OutOfMemoryError, "CUDA out of memory"),
        (RuntimeError, "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_too_little_memory_is_one_line(
    trained: Path,
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[Exception],
    text: str,
) -> None:
    def step(engine: object) -> None:
        raise kind(text)

    monkeypatch.setattr("lmlab.generation.engine.Engine.step", step)
    assert main(["generate", str(trained), "--prompt", "a"]) == 1
    assert capsys.readouterr().err == "lmlab: not enough memory; lower --batch-size\n"


def test_a_closed_output_is_one_line(trained: Path) -> None:
    command = f"exec {sys.executable} -m lmlab.cli generate '{trained}' --prompt a >&-"
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "standard output is closed" in done.stderr


def test_settings_are_written_as_text() -> None:
    options = Options()
    for name, text, value in (
        ("top-k", "5", 5),
        ("max_new_tokens", "7", 7),
        ("--temperature", "0.5", 0.5),
        ("stop", "a\\nb", ("a\nb",)),
        ("stop", "none", ()),
        ("top_k", "none", None),
        ("temperature", "None", 1.0),
    ):
        options = settings.with_setting(options, name, text)
        assert getattr(options, name.removeprefix("--").replace("-", "_")) == value
    for name, text, problem in (
        ("heat", "1", "unknown setting 'heat'; there is max_new_tokens, min_new_tokens"),
        ("top_p", "x", "top_p must be a number, got 'x'"),
        ("top_p", "2", "top_p must be a number above 0"),
        ("stop", "", "stop must be strings"),
    ):
        with pytest.raises(lmlab.errors.UserError, match=problem):
            settings.with_setting(options, name, text)
