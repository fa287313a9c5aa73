"""What text a corpus has, and its halves: python -m pytest tests/data/test_corpus.py."""

import gzip
import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from lmlab.data.config import DataConfig, StdlibConfig, TextConfig
from lmlab.data.corpus import Corpus, Counts, cache_root, identify, open_corpus
from lmlab.errors import ConfigError, DataError

ADAPTER: TypeAdapter[DataConfig] = TypeAdapter(DataConfig)
CONF = Path(__file__).parents[2] / "conf" / "data"


def text(**changes: Any) -> TextConfig:
    plain = yaml.safe_load((CONF / "text.yaml").read_text())
    return TextConfig(**{**plain, **changes})


def halves(corpus: Corpus, counts: Counts | None = None) -> tuple[list[str], list[str]]:
    """(training, validation)"""
    pairs = [(held, bytes(d).decode()) for held, d in corpus.documents(counts or Counts())]
    return [text for held, text in pairs if not held], [text for held, text in pairs if held]


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_yaml_loads(path: Path) -> None:
    assert ADAPTER.validate_python(yaml.safe_load(path.read_text())).kind == path.stem


def test_a_path_may_stand_alone_and_a_separator_be_escaped() -> None:
    config = text(paths="a.txt", separator=r"\n\n")
    assert config.paths == ["a.txt"]
    assert identify(text(paths=__file__, separator=r"\n\n"))["separator"] == "\n\n"
    assert TextConfig(**config.model_dump()) == config  # a stored configuration stays the same
    for bad in (
        {"separator": ""},
        {"separator": r"\newpage"},
        {"validation_fraction": 1},
        {"nonsense": 1},
    ):
        with pytest.raises(ValidationError):
            text(**bad)


def test_cache_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LMLAB_DATA", raising=False)
    assert cache_root(text()) == Path("data")
    monkeypatch.setenv("LMLAB_DATA", "/big/disk")
    assert cache_root(text()) == Path("/big/disk")
    assert cache_root(text(cache_dir="mine")) == Path("mine")


def test_the_standard_library_is_real_text() -> None:
    config = StdlibConfig(**yaml.safe_load((CONF / "stdlib.yaml").read_text()))
    corpus = open_corpus(config, progress=False)
    root = Path(sysconfig.get_path("stdlib"))
    assert {root / "os.py", root / "json" / "decoder.py"} <= set(corpus.training)
    assert not [p for p in corpus.training if {"site-packages", "dist-packages"} & set(p.parts)]
    assert list(corpus.training) == sorted(corpus.training)


def test_a_lenient_corpus_counts_what_it_passes_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site-packages").mkdir()
    for name, content in {
        "b.py": b"b = 1",
        "a.py": b"a = 1",
        "latin.py": b"# -*- coding: latin-1 -*-\n# \xe9",
        "__init__.py": b"",
        "notes.txt": b"no source",
        "site-packages/other.py": b"c = 1",
    }.items():
        (tmp_path / name).write_bytes(content)
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    config = StdlibConfig(kind="stdlib", cache_dir=None, validation_fraction=1e-9)
    counts = Counts()
    corpus = open_corpus(config, progress=False)
    assert halves(corpus, counts)[0] == ["a = 1", "b = 1"]
    assert corpus.skipped_files == 1
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path / "empty"))
    with pytest.raises(DataError, match="use data=text"):
        open_corpus(config, progress=False)


def test_globs_and_formats_together(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.txt").write_text("alpha")
    (tmp_path / "b.md").write_text("beta")
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(b'{"text": "gamma"}\n{"text": "delta"}'))
    (tmp_path / "odd[1].txt").write_text("epsilon")
    config = text(
        paths=[
            f"{tmp_path}/**/*.txt",
            f"{tmp_path}/b.md",
            f"{tmp_path}/c.*",
            f"{tmp_path}/sub/a.txt",
            f"{tmp_path}/odd[1].txt",
        ],
        validation_fraction=1e-9,
    )
    assert halves(open_corpus(config, progress=False))[0] == [
        "beta",
        "gamma",
        "delta",
        "epsilon",
        "alpha",
    ]


@pytest.mark.parametrize(
    ("change", "kind", "problem"),
    [
        ({"paths": []}, ConfigError, r"data\.paths.*is empty; name your files"),
        ({"paths": ["none/*.txt"]}, DataError, r"data\.paths: 'none/\*\.txt' matches no file in /"),
        ({"paths": ["gone.txt"]}, DataError, r"data\.paths: 'gone\.txt' matches no file in /"),
        ({"paths": ["sub"]}, DataError, r"data\.paths: 'sub' holds no file"),
        ({"paths": ["*.md"]}, DataError, r"cannot be read: link\.md: No such file"),
        ({"paths": ["link.md"]}, DataError, r"'link\.md' cannot be read: No such file"),
        ({"paths": ["self"]}, DataError, r"'self' cannot be read: Too many levels of symbolic"),
        ({"paths": ["self/*.txt"]}, DataError, r"'self/\*\.txt' (matches no file|cannot be read)"),
        ({"paths": ["pipe"]}, DataError, r"'pipe' cannot be read: it is a named pipe.*to a file"),
        ({"paths": ["/dev/zero"]}, DataError, r"'/dev/zero' cannot be read: it is a device"),
        ({"paths": ["~nobody-here/a"]}, DataError, r"'~nobody-here/a' cannot be read"),
        ({"paths": ["**.txt"]}, DataError, r"'\*\*\.txt' cannot be read: .*entire path component"),
        ({"paths": ["a\0b"]}, DataError, r"data\.paths: 'a.x00b' "),
        ({"paths": [""]}, ConfigError, r"'' names nothing"),
        ({"paths": ["x" * 300]}, DataError, "'x{300}' cannot be read: File name too long"),
        ({"validation_paths": []}, ConfigError, r"data\.validation_paths.*is empty"),
        ({"validation_paths": ["no"]}, DataError, r"data\.validation_paths: 'no' matches no file"),
        ({"validation_paths": ["*.txt"]}, ConfigError, r"data\.paths.*names only files"),
    ],
)
def test_bad_paths_are_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, Any],
    kind: type[Exception],
    problem: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "link.md").symlink_to("gone")
    (tmp_path / "self").symlink_to("self")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(kind, match=problem) as caught:
        identify(text(**{"paths": ["a.txt"], **change}))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b" \n\t"])
def test_a_file_without_text_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.txt: holds no text"):
        halves(open_corpus(text(paths=[f"{tmp_path}/*"]), progress=False))


DOCUMENTS = st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=3), max_size=40)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(documents=DOCUMENTS, fraction=st.floats(0.05, 0.95))
def test_validation_never_overlaps_training(
    tmp_path: Path, documents: list[str], fraction: float
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps({"text": d}) for d in ["x", *documents]))
    config = text(paths=[str(path)], validation_fraction=fraction)
    train, validation = halves(open_corpus(config, progress=False))
    assert not {t.strip() for t in train} & {t.strip() for t in validation}
    kept = "".join(d for d in ["x", *documents] if d.strip())
    assert sorted("".join(train + validation)) == sorted(kept)


def test_the_fraction_is_met_and_the_split_is_stable(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("|".join(f"document {i}" for i in range(20_000)))
    config = text(paths=[str(path)], separator="|", validation_fraction=0.1)
    validation = set(halves(open_corpus(config, progress=False))[1])
    assert abs(len(validation) - 2000) < 200  # 4.7 standard deviations
    # More text, another order: what was held out stays held out.
    path.write_text("new|" + "|".join(f"document {i}" for i in reversed(range(20_000))))
    assert set(halves(open_corpus(config, progress=False))[1]) - {"new"} == validation


def test_the_split_stays_what_it_is(tmp_path: Path) -> None:
    """Results are compared across versions of this project: the held-out text must not move."""
    path = tmp_path / "a.txt"
    path.write_text("|".join(f"document {i}" for i in range(30)))
    config = text(paths=[str(path)], separator="|", validation_fraction=0.2)
    held_out = halves(open_corpus(config, progress=False))[1]
    assert held_out == [f"document {i}" for i in [2, 10, 13, 14, 17]]


def test_validation_files_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("one|two|\nthree\n|two|four")
    (tmp_path / "valid.txt").write_text("two|three")
    config = text(
        # The glob names valid.txt too: validation files are no training files.
        paths=[f"{tmp_path}/*.txt"],
        validation_paths=[f"{tmp_path}/valid.txt"],
        separator="|",
    )
    counts = Counts()
    train, validation = halves(open_corpus(config, progress=False), counts)
    assert train == ["one", "four"]
    assert validation == ["two", "three"]
    assert counts.duplicates == 3


def test_the_identity_changes_with_the_text_and_what_matters(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one")
    config = text(paths=[str(path)])
    first = identify(config)
    assert json.loads(json.dumps(first)) == first
    assert identify(config.model_copy(update={"cache_dir": "/elsewhere"})) == first
    assert identify(text(paths=[f"{tmp_path}/*", f"{tmp_path}/./a.txt"])) == first
    assert identify(config.model_copy(update={"separator": "|"})) != first
    (tmp_path / "b.md").write_text("two")
    assert identify(text(paths=[f"{tmp_path}/*"])) != first
    other = text(paths=[str(path)], validation_paths=[f"{tmp_path}/b.md"])
    assert identify(other) != first
    assert identify(config.model_copy(update={"validation_fraction": 0.5})) != first
    path.write_text("one and more")
    longer = identify(config)
    assert longer != first
    os.utime(path, ns=(0, 0))  # rewritten with as many bytes
    assert identify(config) != longer


def test_a_download_is_identified_without_its_file() -> None:
    config = ADAPTER.validate_python(yaml.safe_load((CONF / "tinystories.yaml").read_text()))
    assert config.kind == "tinystories"
    first = identify(config)
    other = config.train.model_copy(update={"sha256": "0" * 64})
    assert identify(config.model_copy(update={"train": other})) != first
    assert identify(config.model_copy(update={"license": "other words"})) == first


def test_importing_the_configuration_loads_nothing_heavy() -> None:
    code = "import sys, lmlab.data.config; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    assert not {b"numpy", b"torch", b"requests", b"tqdm"} & set(loaded.split())


def test_folders_links_and_brackets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in {
        "set[1]/a.txt": b"alpha",
        "set[1]/deep/b.md": b"beta",
        "set[1]/deep/blank.txt": b"",
        "set[1]/deep/image.png": b"\x89PNG\0",
        "set[1]/.git/config": b"hidden",
        "set1/c.txt": b"gamma",
        "data/own.txt": b"delta",
        "data/text-0123456789abcdef/meta.json": b"{}",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "set[1]" / "x").symlink_to(".")
    (tmp_path / "set[1]" / "y").symlink_to(".")
    os.mkfifo(tmp_path / "set[1]" / "pipe.txt")

    def names(*paths: str) -> list[str]:
        corpus = open_corpus(text(paths=list(paths), cache_dir="data"), progress=False)
        assert sum(1 for _ in corpus.documents(Counts()))
        return [path.name for path in corpus.training]

    assert names("set[1]") == ["a.txt", "b.md", "blank.txt"]
    assert "image.png and 0 more files" in capsys.readouterr().err
    (tmp_path / "set[1]" / "deep" / "blank.txt").unlink()
    assert names("set[1]/**/*.txt", "set[1]/**/*.md") == ["a.txt", "b.md"]
    assert names("set[1]/*.txt") == ["a.txt"]
    assert names("set[12]/*.txt") == ["c.txt"]  # a pattern: no folder has that name
    assert names("set[1]/x/a.txt") == ["a.txt"]
    assert names("data") == ["own.txt"]  # not what is prepared there
    assert names(f"{tmp_path}/set1/../data/*.txt") == ["own.txt"]
