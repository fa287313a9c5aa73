"""Prepared data among crashes, damage and full disks: python -m pytest tests/data/test_cache.py."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lmlab.data import cache, prepare
from lmlab.data.config import TextConfig
from lmlab.errors import DataError
from lmlab.tokenizer.config import ByteConfig

STORIES = [f"Story {i}: the cat and the dog found {i * i} bones.\n" for i in range(200)]
Text = Callable[..., TextConfig]


def start(code: str, config: TextConfig) -> "subprocess.Popen[str]":
    """Run `code` in a process of its own; `data`, `byte` and `prepare` are at hand."""
    head = f"""
        from lmlab.data import prepare
        from lmlab.data.config import TextConfig
        from lmlab.tokenizer.config import ByteConfig
        data = TextConfig.model_validate_json({config.model_dump_json()!r})
        byte = ByteConfig(kind="byte", special_tokens=("<|endoftext|>",))
    """
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(head) + textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def visible(root: Path) -> set[str]:
    return {path.name for path in root.iterdir() if path.name not in (".locks", "tokenizers")}


def test_processes_that_ask_at_once_prepare_once(text: Text, tmp_path: Path) -> None:
    code = """
        import time
        from pathlib import Path
        from lmlab.data import preparation
        encode = preparation._encode
        def slow(*arguments):
            print("built")
            time.sleep(1.5)
            return encode(*arguments)
        preparation._encode = slow
        print("ready", flush=True)
        while not (Path(data.cache_dir).parent / "go").exists():
            time.sleep(0.01)
        prepared = prepare(data, byte, progress=False)
        print(prepared.reused, len(prepared.train), prepared.tokenizer.vocab_size)
    """
    config = text(STORIES)
    processes = [start(code, config) for _ in range(3)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    (tmp_path / "go").touch()
    results = [(*process.communicate(timeout=60), process.returncode) for process in processes]
    assert [returncode for *_, returncode in results] == [0, 0, 0]
    outputs = sorted(out.split("\n") for out, *_ in results)
    assert [len(lines) for lines in outputs] == [2, 2, 3]
    assert outputs[2][0] == "built"
    assert outputs[2][1].startswith("False ")
    assert all(lines[0] == outputs[2][1].replace("False", "True") for lines in outputs[:2])
    assert sum("another process is preparing /" in err for _, err, _ in results) == 2


@pytest.mark.parametrize(
    "stage",
    ["preparation._survey", "preparation._encode", "cache._seal", "cache.fsync_directory"],
)
def test_a_killed_process_leaves_nothing_that_matters(
    text: Text, byte: ByteConfig, tmp_path: Path, stage: str
) -> None:
    """Killed at the end of each stage, the last of which is after the renaming."""
    module, name = stage.split(".")
    code = f"""
        import time
        from pathlib import Path
        from lmlab.data import {module}
        original = {module}.{name}
        def reach_and_hang(*arguments):
            original(*arguments)
            if {name!r} != "fsync_directory" or arguments[0] == Path(data.cache_dir):
                print("reached", flush=True)
                time.sleep(600)
        {module}.{name} = reach_and_hang
        prepare(data, byte, progress=False)
    """
    config = text(STORIES)
    process = start(code, config)
    assert process.stdout is not None
    assert process.stdout.readline() == "reached\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    finished = name == "fsync_directory"
    root = tmp_path / "cache"
    assert len(visible(root)) == 1
    assert next(iter(visible(root))).endswith(".tmp") != finished
    prepared = prepare(config, byte, progress=False)
    assert prepared.reused == finished
    assert visible(root) == {prepared.directory.name}
    assert len(prepared.val) == prepared.meta.val_tokens


def test_leftovers_of_other_data_go_too_but_not_those_in_use(
    text: Text, byte: ByteConfig, tmp_path: Path
) -> None:
    root = tmp_path / "cache"
    for name in ("text-dead", "text-busy"):
        (root / f".{name}.0123456789ab.tmp").mkdir(parents=True)
    busy = start(
        """
        import time
        from pathlib import Path
        from lmlab.io.locks import locked
        (Path(data.cache_dir) / ".locks").mkdir()
        with locked(Path(data.cache_dir) / ".locks" / "text-busy.lock", "at it"):
            print("locked", flush=True)
            time.sleep(600)
        """,
        text(STORIES),
    )
    assert busy.stdout is not None
    assert busy.stdout.readline() == "locked\n"
    try:
        prepared = prepare(text(STORIES), byte, progress=False)
        assert visible(root) == {prepared.directory.name, ".text-busy.0123456789ab.tmp"}
    finally:
        busy.kill()
        busy.communicate()


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 2)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def edit(path: Path) -> None:
    meta = json.loads(path.read_text())
    del meta["files"]
    path.write_text(json.dumps(meta))


@pytest.mark.parametrize(
    ("name", "harm", "reason"),
    [
        ("train.bin", Path.unlink, "No such file"),
        ("val.bin", cut, "bytes instead of"),
        ("train.bin", flip, "train.bin has changed"),
        ("meta.json", cut, ""),
        ("meta.json", lambda path: path.write_text("[]"), ""),
        ("meta.json", edit, "files"),
        ("meta.json", lambda path: path.write_bytes(b"\xff\xfe"), ""),
        ("meta.json", Path.unlink, "No such file"),
        ("tokenizer", lambda path: [flip(file) for file in path.iterdir()], "has changed"),
    ],
)
def test_damage_is_noticed_said_and_mended(
    text: Text,
    byte: ByteConfig,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    name: str,
    harm: Callable[[Path], object],
    reason: str,
) -> None:
    first = prepare(text(STORIES), byte, progress=False)
    train = np.array(first.train)
    harm(first.directory / name)
    capsys.readouterr()
    mended = prepare(text(STORIES), byte, progress=False)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith(f"{first.directory} is damaged (")
    assert said[0].endswith("); building it again")
    assert reason in said[0]
    assert not mended.reused
    assert np.array_equal(mended.train, train)
    assert visible(tmp_path / "cache") == {mended.directory.name}
    assert prepare(text(STORIES), byte, progress=False).reused


def test_a_damaged_cached_tokenizer_is_trained_again(
    text: Text, byte: ByteConfig, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    first = prepare(text(STORIES), byte, progress=False)
    [vocabulary] = (tmp_path / "cache" / "tokenizers").glob("byte-*/tokenizer")
    for path in vocabulary.iterdir():
        cut(path)
    second = prepare(text(STORIES, "copy.txt"), byte, progress=False)
    assert "is damaged (" in capsys.readouterr().err
    assert np.array_equal(first.train, second.train)


def test_samples_of_a_big_file_notice_most_damage(tmp_path: Path) -> None:
    """A file far larger than what is sampled: its ends, its length and any long damage show."""
    path = tmp_path / "big.bin"
    content = np.random.default_rng(0).bytes(20 << 20)
    path.write_bytes(content)
    sound = cache._checksum(path)
    assert sound == cache._checksum(path)
    for begin, end in [(0, 1), (len(content) - 1, len(content)), (5 << 20, 6 << 20)]:
        path.write_bytes(content[:begin] + bytes(end - begin) + content[end:])
        assert cache._checksum(path) != sound


def test_a_full_disk_keeps_the_last_good_state(
    text: Text, byte: ByteConfig, small_disk: Path
) -> None:
    where = str(small_disk / "cache")
    good = prepare(text(STORIES, cache_dir=where), byte, progress=False)
    large = text([story * 50 for story in STORIES], "large.txt", cache_dir=where)
    with pytest.raises(DataError, match="No space left on device") as caught:
        prepare(large, byte, progress=False)
    assert str(caught.value).startswith(f"{where}: ")
    assert "data.cache_dir" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert visible(small_disk / "cache") == {good.directory.name}
    assert prepare(text(STORIES, cache_dir=where), byte, progress=False).reused
    elsewhere = large.model_copy(update={"cache_dir": str(small_disk.parent / "larger")})
    assert not prepare(elsewhere, byte, progress=False).reused


def test_a_file_that_may_not_grow_is_one_line(text: Text, tmp_path: Path) -> None:
    code = """
        import resource
        from lmlab.errors import DataError
        from lmlab.data import prepare
        prepare(data, byte, progress=False)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        large = data.model_copy(update={"paths": [data.paths[0].replace("corpus", "large")]})
        try:
            prepare(large, byte, progress=False)
        except DataError as error:
            print(error)
        print(prepare(data, byte, progress=False).reused)
    """
    text([story * 50 for story in STORIES], "large.txt")
    config = text(STORIES)
    process = start(code, config)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    root = tmp_path / "cache"
    message, reused = out.splitlines()
    assert message.startswith(f"{root}: File too large while preparing data; free some space")
    assert reused == "True"
    assert len(visible(root)) == 1


def test_a_directory_that_cannot_be_written_is_one_line(
    text: Text, byte: ByteConfig, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    config = text(STORIES, cache_dir=str(tmp_path / "file" / "cache"))
    with pytest.raises(DataError, match="Not a directory while preparing data") as caught:
        prepare(config, byte, progress=False)
    assert "\n" not in str(caught.value)


def test_memory_does_not_grow_with_the_corpus(text: Text, tmp_path: Path) -> None:
    """100 MB of documents, in a process that has loaded everything before."""
    code = """
        import resource
        warm = data.model_copy(update={"paths": [data.paths[0].replace("corpus", "warm")]})
        prepare(warm, byte, progress=False)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        prepared = prepare(data, byte, progress=False)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print((after - before) >> 10, prepared.meta.train_bytes)
    """
    text([story * 1000 for story in STORIES], "warm.txt")
    stories = (f"{i} {story}" * 20 for i in range(500) for story in STORIES)
    with (tmp_path / "corpus.txt").open("w") as file:
        for story in stories:
            file.write(story + "|")
    config = text([], "empty.txt").model_copy(update={"paths": [str(tmp_path / "corpus.txt")]})
    config = config.model_copy(update={"validation_fraction": 0.01})
    process = start(code, config)
    out, err = process.communicate(timeout=500)
    assert process.returncode == 0, err
    grown, size = map(int, out.split())
    assert size > 90e6
    assert grown < 60, f"{grown} MiB"
