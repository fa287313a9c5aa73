"""The command line of clean.py: mistakes are one line, exit code 1, no traceback."""

import subprocess
import sys
from pathlib import Path

import pytest
from corpus import RECIPE, write_corpus

from lmlab.clean_app import clean_config
from lmlab.errors import UserError
from tests_support import CONF, ROOT

MISTAKES = {
    ("cleaning=cours",): "'cours' is not one of 'c4', 'course', 'fineweb', 'gopher' (did you mean",
    ("cleaning.steps.gopher.min_wods=3",): "did you mean 'min_words'?",
    ("+cleaning.steps.gopher.min_wods=3",): "did you mean 'min_words'?",
    ("cleaning.steps.gofer.min_words=3",): "'cleaning.steps.gofer': unknown key, did you mean 'go",
    ("cleaning.steps.gopher.max_ellipsis_lines=3",): "must be <= 1, got 3",
    ("cleaning.steps.gopher.min_words=many",): "must be a whole number, got 'many'",
    ("cleaning.steps.gopher.min_words=200000",): "at 'cleaning.steps.gopher': min_words=200000 is",
    ("cleaning.steps.minhash.num_bands=7",): "at 'cleaning.steps.minhash': num_bands=7 does",
    ("executor=slrum",): "did you mean 'slurm'?",
    ("executor.workers=0",): "must be >= 1, got 0",
    ("executor=slurm",): "config error at 'executor.partition'",
    ("inptu=[x]",): "did you mean 'input'?",
    (): "config error at 'input': is empty",
    ("input=[nowhere/*.warc]",): "matches no file",
    ("cleaning=null",): "config error at 'cleaning': a group; give it one of its choices",
    ("=3",): "config error at '=3': has no key",
    ("input=[ä.gz]",): """; put text in quotes: "input=['ä.gz']\"""",
    ("--resume",): "unknown option --resume",
    ("-m", "seed=1,2"): "unknown option -m",
}


@pytest.mark.parametrize("arguments", MISTAKES, ids=" ".join)
def test_mistakes_are_one_line(arguments: tuple[str, ...], tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "clean.py"), *arguments, f"output='{tmp_path / 'o'}'"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert MISTAKES[arguments] in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "o").exists()


def test_help_names_every_recipe_and_step() -> None:
    command = [sys.executable, str(ROOT / "clean.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "c4, course, fineweb, gopher" in done.stdout
    for kind in ("extract", "gopher", "minhash", "exact_lines", "decontaminate"):
        assert f"cleaning.steps.NAME={kind}" in done.stdout
    assert "experiment" not in done.stdout


def test_a_run_prints_its_funnel(tmp_path: Path) -> None:
    inputs = write_corpus(tmp_path / "in", files=1)
    command = [sys.executable, str(ROOT / "clean.py"), f"input='{inputs}'", "output=out", *RECIPE]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == [
        *("read", "pii", "gopher", "exact_lines", "minhash", "out:")
    ]
    assert "words" in lines[2]


@pytest.mark.parametrize("recipe", sorted(path.stem for path in (CONF / "cleaning").iterdir()))
@pytest.mark.parametrize("executor", ["local", "datatrove", "ray", "slurm"])
def test_every_recipe_composes(recipe: str, executor: str) -> None:
    partition = ["executor.partition=cpu"] if executor == "slurm" else []
    config = clean_config(f"cleaning={recipe}", f"executor={executor}", "input=[x]", *partition)
    assert config.cleaning.steps
    assert config.executor.kind == executor


def test_entries_of_a_step_change_by_their_names() -> None:
    shares = "cleaning.steps.repetition.top_ngrams"

    def ngrams(*overrides: str) -> dict[int, float]:
        config = clean_config("cleaning=fineweb", "input=[x]", *overrides)
        return config.cleaning.steps["repetition"].top_ngrams

    assert ngrams(f"{shares}.2=0.5", f"~{shares}.3", f"+{shares}.5=0.1") == {
        2: 0.5,
        4: 0.16,
        5: 0.1,
    }
    with pytest.raises(UserError, match=f"{{}} removes no entry; remove them with ~{shares}.2 ~"):
        ngrams(f"{shares}={{}}")
    with pytest.raises(UserError, match=rf"put a \+ before it, as in \+{shares}.5=VALUE"):
        ngrams(f"{shares}={{5: 0.1}}")


def test_two_steps_of_one_name_are_refused() -> None:
    with pytest.raises(UserError, match="two steps write scores as 'minhash'"):
        clean_config("+cleaning.steps.again=${cleaning.steps.minhash}", "input=[x]")


def test_an_input_that_cannot_be_read_fails_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "web.jsonl").write_text('{"text": "some words"}\n{"text": "others"}\n')
    command = [sys.executable, str(ROOT / "clean.py"), "input=[web.jsonl]", *RECIPE]
    options = {"capture_output": True, "text": True, "cwd": tmp_path}
    done = subprocess.run([*command, "output=out", "read.field=nope"], **options)
    reason = "web.jsonl at byte 0: no text in field 'nope' (other fields: 'text'); set read.field"
    assert done.returncode == 1
    assert "could not be read: 2 parts" in done.stdout
    assert done.stderr.splitlines()[-1].startswith("nothing of the input could be read: ")
    assert done.stderr.rstrip().endswith(reason)
    with (tmp_path / "web.jsonl").open("a") as file:
        file.write('{"words": 3}\n')
    done = subprocess.run([*command, "output=other"], **options)
    assert done.returncode == 0
    assert "could not be read: 1 part of the input" in done.stdout
    assert "web.jsonl at byte 42: no text in field 'text' (other fields: 'words')" in done.stdout


@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_an_input_without_documents_fails(tmp_path: Path, content: bytes) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_bytes(content)
    command = [sys.executable, str(ROOT / "clean.py"), *RECIPE]
    for pattern, more in (("a.jsonl", ""), ("*.jsonl", " and 1 more")):
        done = subprocess.run(
            [*command, f"input=['{pattern}']", f"output=out{len(more)}"],
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        assert done.returncode == 1
        last = done.stderr.splitlines()[-1]
        assert last.startswith("the input has no documents: ")
        assert last.endswith(f"a.jsonl{more}; name files that hold text")


def test_when_every_document_is_removed_it_is_said(tmp_path: Path) -> None:
    (tmp_path / "noise.txt").write_bytes(bytes(range(128, 256)) * 40)
    command = [sys.executable, str(ROOT / "clean.py"), "input=[noise.txt]", "output=out", *RECIPE]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0
    assert "out: 0 documents" in done.stdout
    assert done.stderr.splitlines()[-1].startswith("warning: no document was kept, see above")
