"""`lmlab tokenizer` as a user runs it: a process, its exit code and what it prints."""

import gzip
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import zstandard
from tokenizer_strategies import trained

from lmlab.tokenizer import Tokenizer, train_bpe

END = "<|endoftext|>"
Finished = subprocess.CompletedProcess[str]


def lmlab(*arguments: object, limit: int | None = None, memory: int | None = None) -> Finished:
    """Run the command; `limit` is the largest file, in bytes, that it may write."""

    def set_limit() -> None:
        if memory is not None:
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
            most = resource.getrlimit(resource.RLIMIT_STACK)[1]
            resource.setrlimit(resource.RLIMIT_STACK, (8 << 20, most))  # of each thread
        if limit is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that writing fails with EFBIG
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [sys.executable, "-m", "lmlab.cli", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, preexec_fn=set_limit, timeout=120
    )


def refused(result: Finished, *words: str) -> None:
    """The command failed with one line that holds these words."""
    assert result.returncode == 1, result
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.startswith("lmlab: ")
    for word in words:
        assert word in result.stderr


@pytest.fixture
def text(tmp_path: Path, corpus: str) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(f"{corpus[:6000]}{END}{corpus[6000:]}", newline="")
    return path


@pytest.fixture
def folder(tmp_path: Path, small: Tokenizer) -> Path:
    small.save(tmp_path / "small")
    return tmp_path / "small"


def test_train_encode_decode(tmp_path: Path, text: Path) -> None:
    folder, ids, back = tmp_path / "tok", tmp_path / "ids.bin", tmp_path / "back.txt"
    trained = lmlab(
        *("tokenizer", "train", text, "--vocab-size", 400, "--special", END),
        *("--special", "<|pad|>", "--pattern", "o200k", "--out", folder),
    )
    assert trained.returncode == 0, trained.stderr
    assert "400 tokens" in trained.stdout
    tokenizer = Tokenizer.load(folder)
    specials = [END, "<|pad|>"]
    assert (tokenizer.vocab, tokenizer.merges) == train_bpe(text, 400, specials, pattern="o200k")
    assert tokenizer.pattern == "o200k"

    encoded = lmlab("tokenizer", "encode", folder, text, "--out", ids, "--threads", 1)
    assert encoded.returncode == 0, encoded.stderr
    content = text.read_bytes().decode()
    assert np.fromfile(ids, np.uint16).tolist() == tokenizer.encode(content)

    assert lmlab("tokenizer", "decode", folder, ids, "--out", back).returncode == 0
    assert back.read_bytes() == text.read_bytes()
    printed = subprocess.run(
        [sys.executable, "-m", "lmlab.cli", "tokenizer", "decode", folder, ids],
        capture_output=True,
        check=True,
    )
    assert printed.stdout == text.read_bytes()


def test_progress_bars_go_to_stderr_and_can_be_silenced(
    tmp_path: Path, text: Path, folder: Path
) -> None:
    command = ("tokenizer", "encode", folder, text, "--out", tmp_path / "ids.bin")
    assert "encode" in lmlab(*command).stderr
    assert lmlab(*command, "--quiet").stderr == ""


def test_several_inputs_one_of_them_compressed(tmp_path: Path, text: Path, folder: Path) -> None:
    packed = tmp_path / "more.txt.gz"
    packed.write_bytes(gzip.compress(text.read_bytes()))
    result = lmlab("tokenizer", "encode", folder, text, packed, "--out", tmp_path / "ids.bin")
    assert result.returncode == 0, result.stderr
    ids = np.fromfile(tmp_path / "ids.bin", np.uint16)
    assert len(ids) % 2 == 0
    assert np.array_equal(ids[: len(ids) // 2], ids[len(ids) // 2 :])


@pytest.mark.parametrize("pattern", ["gpt2", r"\w+|\W+"])
def test_sizes_of_pipes_and_of_compressed_files(
    tmp_path: Path, text: Path, small: Tokenizer, pattern: str
) -> None:
    folder = tmp_path / "tok"
    Tokenizer(small.vocab, small.merges, [END], pattern).save(folder)
    packed = tmp_path / "text.gz"
    packed.write_bytes(gzip.compress(text.read_bytes()))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    out = tmp_path / "ids.bin"
    size = f"of {text.stat().st_size:,} bytes"
    assert size in lmlab("tokenizer", "encode", folder, text, "--out", out).stdout
    expected = out.read_bytes()
    assert size in lmlab("tokenizer", "encode", folder, packed, "--out", out).stdout
    assert out.read_bytes() == expected
    with subprocess.Popen(["cp", text, pipe]):
        assert size in lmlab("tokenizer", "encode", folder, pipe, "--out", out).stdout
    assert out.read_bytes() == expected
    alone = lmlab("tokenizer", "compare", folder, "--on", packed, "--quiet")
    with subprocess.Popen(["cp", text, pipe]):
        piped = lmlab("tokenizer", "compare", folder, "--on", pipe, "--quiet")
    assert piped.stdout.split()[-3:] == alone.stdout.split()[-3:]
    two = lmlab("tokenizer", "compare", folder, folder, "--on", text, pipe, "--quiet")
    refused(two, str(pipe), "only once")


def test_inspect(folder: Path, small: Tokenizer) -> None:
    result = lmlab("tokenizer", "inspect", folder, "--longest", 3)
    assert result.returncode == 0, result.stderr
    assert "tokens         500" in result.stdout
    assert "<|endoftext|> = 499" in result.stdout
    longest = max((t for i, t in small.vocab.items() if i != 499), key=len)
    lines = result.stdout.splitlines()
    assert repr(longest.decode()) in lines[lines.index("") + 2]
    assert len(lines) == lines.index("") + 5


def test_compare(tmp_path: Path, text: Path, folder: Path, small: Tokenizer, corpus: str) -> None:
    other = tmp_path / "tokenizer.json"
    trained(corpus, 400, [END]).to_huggingface(other)
    short = tmp_path / "short.txt"
    short.write_text("some words")
    result = lmlab("tokenizer", "compare", folder, other, "--on", text, short, "--quiet")
    assert result.returncode == 0, result.stderr
    rows = [line.split() for line in result.stdout.splitlines()[2:]]
    assert [row[-1] for row in rows] == [str(folder), str(other)]
    content = text.read_bytes()
    assert rows[0][0] == f"{len(content) / len(small.encode(content.decode())):.2f}"
    assert rows[0][1] == f"{10 / len(small.encode('some words')):.2f}"
    assert float(rows[1][0]) < float(rows[0][0])


@pytest.mark.parametrize("command", ["", "train", "encode", "decode", "inspect", "compare"])
def test_help(command: str) -> None:
    result = lmlab("tokenizer", *command.split(), "--help")
    assert result.returncode == 0
    assert not command or f"lmlab tokenizer {command} " in result.stdout.split("example:")[1]


def test_output_may_be_cut_by_a_pipe(folder: Path) -> None:
    command = f"{sys.executable} -m lmlab.cli tokenizer inspect {folder} --longest 400 | head -1"
    result = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert result.stderr == ""


# Bad input


def test_wrong_command_lines() -> None:
    refused(lmlab(), "COMMAND")
    refused(lmlab("tokeniser"), "invalid choice")
    refused(lmlab("tokenizer", "train"), "INPUT", "lmlab tokenizer train --help")
    refused(lmlab("tokenizer", "train", "a", "--out", "b", "--vocab-size", "many"), "vocab-size")


def test_bad_training(tmp_path: Path, text: Path) -> None:
    out = tmp_path / "tok"

    def train(path: Path, *arguments: object) -> Finished:
        size = () if "--vocab-size" in arguments else ("--vocab-size", 300)
        command = ("tokenizer", "train", path, "--out", out, "--quiet", *size)
        return lmlab(*command, *arguments)

    bad = tmp_path / "bad.txt"
    bad.write_bytes(b"some words \xff")
    refused(train(bad), "bad.txt", "byte 11")
    refused(train(tmp_path / "missing.txt"), "missing.txt")
    refused(train(tmp_path), str(tmp_path))
    refused(train(text, "--vocab-size", 255), "255", "256")
    refused(train(text, "--vocab-size", 2**21), "2097152", "at most 2097151")
    refused(train(text, "--vocab-size", 10**23), str(10**23), "at most 2097151")
    refused(train(text, "--special", "a", "--special", "a"), "'a' is given twice")
    refused(train(text, "--special", ""), "empty")
    refused(train(text, "--pattern", "("), "pattern '('")
    refused(train(text, "--pattern", r"\w+"), "does not cover the text")
    refused(train(text, "--threads", 0), "--threads 0")
    (empty := tmp_path / "empty.txt").touch()
    refused(train(empty), "empty.txt", "--vocab-size 256 for single bytes")
    assert not out.exists()
    assert train(empty, "--vocab-size", 256).returncode == 0
    shutil.rmtree(out)
    replaced = train(bad, "--errors", "replace")
    assert replaced.returncode == 0, replaced.stderr


def test_bad_encoding(tmp_path: Path, text: Path, folder: Path) -> None:
    out = tmp_path / "ids.bin"
    refused(lmlab("tokenizer", "encode", tmp_path, text, "--out", out), "no tokenizer is saved")
    missing = tmp_path / "missing.txt"
    refused(lmlab("tokenizer", "encode", folder, missing, "--out", out, "--quiet"), "missing.txt")
    bad = tmp_path / "bad.txt"
    bad.write_bytes(b"some words \xff")
    encode = ("tokenizer", "encode", folder, text, bad, "--out", out, "--quiet")
    refused(lmlab(*encode), "bad.txt", "byte 11")
    assert not out.exists()
    assert lmlab(*encode, "--errors", "replace").returncode == 0


LONG = "x" * 300 + ".txt"


def test_a_name_that_is_too_long(tmp_path: Path, text: Path, folder: Path) -> None:
    problem = "cannot be read: File name too long"
    out = ("--out", tmp_path / "out", "--quiet")
    refused(lmlab("tokenizer", "train", LONG, "--vocab-size", 300, *out), problem)
    refused(lmlab("tokenizer", "encode", folder, LONG, *out), problem)
    refused(lmlab("tokenizer", "decode", folder, LONG), problem)
    refused(lmlab("tokenizer", "compare", folder, folder, "--on", LONG, "--quiet"), problem)
    refused(lmlab("tokenizer", "inspect", LONG), LONG, "no tokenizer is saved here")
    refused(lmlab("tokenizer", "encode", folder, text, "--out", LONG, "--quiet"), "be written")


def test_a_file_that_stops_being_readable(tmp_path: Path, text: Path, folder: Path) -> None:
    bad = Path("/proc/self/mem")  # can be opened, and then not read
    if not bad.exists():
        pytest.skip("needs Linux")
    problem = f"lmlab: {bad}: cannot be read: Input/output error"
    out = ("--out", tmp_path / "out", "--quiet")
    refused(lmlab("tokenizer", "train", text, bad, "--vocab-size", 300, *out), problem)
    refused(lmlab("tokenizer", "encode", folder, text, bad, *out), problem)
    assert not (tmp_path / "out").exists()


def test_names_that_are_no_utf8(tmp_path: Path, text: Path, folder: Path) -> None:
    name = tmp_path / os.fsdecode(b"caf\xe9.txt")
    try:
        name.write_bytes(text.read_bytes())
    except OSError:
        pytest.skip("the file system takes only names that are UTF-8")
    for command in (
        ("train", name, "--vocab-size", 300, "--out", tmp_path / os.fsdecode(b"tok\xe9")),
        ("encode", folder, name, "--out", tmp_path / os.fsdecode(b"ids\xe9.bin")),
        ("compare", folder, "--on", name),
    ):
        result = lmlab("tokenizer", *command, "--quiet")
        assert result.returncode == 0, result.stderr
        assert "\ufffd" in result.stdout
    name.write_bytes(b"\xff")
    out = tmp_path / "ids.bin"
    refused(lmlab("tokenizer", "encode", folder, name, "--out", out, "--quiet"), "caf", "byte 0")


@pytest.mark.skipif(
    "libasan" in os.environ.get("LD_PRELOAD", ""), reason="it takes more addresses than the limit"
)
def test_more_threads_than_there_can_be(tmp_path: Path, text: Path, folder: Path) -> None:
    train = ("tokenizer", "train", text, "--vocab-size", 300, "--out", tmp_path / "tok")
    encode = ("tokenizer", "encode", folder, text, "--out", tmp_path / "ids.bin")
    for command in (train, encode):
        # Each thread asks for 8 MiB of addresses.
        result = lmlab(*command, "--quiet", "--threads", 1000, memory=4 << 30)
        refused(result, "cannot start 1000 threads", "smaller")
        refused(lmlab(*command, "--quiet", "--threads", 10**11), f"{10**11} threads", "1024")
    assert not (tmp_path / "tok").exists()
    assert not (tmp_path / "ids.bin").exists()


def test_the_input_is_not_replaced(tmp_path: Path, text: Path, folder: Path) -> None:
    content = text.read_bytes()
    link = tmp_path / "link.txt"
    link.symlink_to(text)
    for out in (text, link, tmp_path / "small" / ".." / "text.txt"):
        encode = ("tokenizer", "encode", folder, folder / "merges.txt", text, "--out", out)
        refused(lmlab(*encode, "--quiet"), str(out), "is an input")
        refused(lmlab("tokenizer", "decode", folder, text, "--out", out), "is an input")
    assert text.read_bytes() == content


def test_devices_and_pipes_are_written_as_they_are(
    tmp_path: Path, text: Path, folder: Path
) -> None:
    encode = ("tokenizer", "encode", folder, text, "--quiet", "--out")
    assert lmlab(*encode, tmp_path / "ids.bin").returncode == 0
    ids = (tmp_path / "ids.bin").read_bytes()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE) as reader:
        assert lmlab(*encode, pipe).returncode == 0
        assert reader.communicate()[0] == ids
    decode = ("tokenizer", "decode", folder, tmp_path / "ids.bin", "--out")
    with subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE) as reader:
        assert lmlab(*decode, pipe).returncode == 0
        assert reader.communicate()[0] == text.read_bytes()
    assert pipe.is_fifo()
    null = tmp_path / "null"  # a link, so that a failure of this test does no harm
    null.symlink_to("/dev/null")
    assert lmlab(*encode, null).returncode == 0
    assert null.is_symlink()
    assert null.is_char_device()


def test_cut_vocabulary(text: Path, folder: Path) -> None:
    merges = folder / "merges.txt"
    merges.write_bytes(merges.read_bytes()[: -len(merges.read_bytes().splitlines(True)[-1])])
    refused(lmlab("tokenizer", "inspect", folder), "merges.txt", "changed or cut")


def test_bad_decoding(tmp_path: Path, folder: Path) -> None:
    ids = tmp_path / "ids.bin"
    np.array([1, 500], np.uint16).tofile(ids)
    out = tmp_path / "text.txt"
    refused(lmlab("tokenizer", "decode", folder, ids, "--out", out), "id 500 at position 1")
    refused(lmlab("tokenizer", "decode", folder, tmp_path / "no.bin", "--out", out), "no.bin")
    assert not out.exists()


def test_comparing_on_nothing(tmp_path: Path, folder: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.touch()
    refused(lmlab("tokenizer", "compare", folder, "--on", empty), "empty.txt", "nothing to compare")
    packed = tmp_path / "empty.txt.gz"
    packed.write_bytes(gzip.compress(b""))
    refused(lmlab("tokenizer", "compare", folder, "--on", packed, "--quiet"), "empty.txt.gz")


def test_a_disk_that_fills_leaves_the_old_file(tmp_path: Path, corpus: str, folder: Path) -> None:
    text = tmp_path / "long.txt"
    text.write_text(corpus * 100)
    out = tmp_path / "out" / "ids.bin"
    out.parent.mkdir()
    out.write_bytes(b"old")
    encode = ("tokenizer", "encode", folder, text, "--out", out, "--quiet")
    refused(lmlab(*encode, limit=100_000), str(out), "cannot be written", "File too large")
    assert out.read_bytes() == b"old"
    assert [path.name for path in out.parent.iterdir()] == ["ids.bin"]


def test_a_full_disk_while_saving(tmp_path: Path, text: Path) -> None:
    out = tmp_path / "tok"
    train = ("tokenizer", "train", text, "--vocab-size", 300, "--out", out, "--quiet")
    refused(lmlab(*train, limit=1000), "vocab.json", "cannot be written")
    assert not list(out.iterdir())


@pytest.mark.slow
def test_ctrl_c_stops_within_a_second(tmp_path: Path, corpus: str, folder: Path) -> None:
    text = tmp_path / "long.txt"
    with text.open("w") as file:
        for _ in range(4000):
            file.write(corpus)
    out = tmp_path / "ids.bin"
    command = [sys.executable, "-m", "lmlab.cli", "tokenizer", "encode", folder, text]
    process = subprocess.Popen(
        [*command, "--out", out, "--threads", "1"], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    while "encode:" not in process.stderr.read(8):  # the bar appears when the work begins
        pass
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    start = time.monotonic()
    process.wait(timeout=30)
    assert time.monotonic() - start < 1
    assert process.returncode == 130
    assert "Traceback" not in process.stderr.read()
    assert not out.exists()


def write_rows(path: Path, texts: list[str], field: str = "text") -> Path:
    """Write documents as JSON lines, packed as the name says, or Parquet."""
    if path.suffix == ".parquet":
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pyarrow.table({field: texts}), path)
        return path
    lines = "".join(json.dumps({field: text}) + "\n" for text in texts).encode()
    pack = {".gz": gzip.compress, ".zst": zstandard.compress}.get(path.suffix, bytes)
    path.write_bytes(pack(lines))
    return path


ROWS = ["a.json.gz", "a.jsonl", "a.txt", "a.jsonl.zst", "a.parquet"]


@pytest.mark.parametrize("name", ROWS)
def test_documents_in_rows(tmp_path: Path, folder: Path, name: str) -> None:
    """Each is a text of its own, in which special tokens are ordinary text."""
    texts = ["one two", f"three {END} four", "", "fünf"]
    path, out = write_rows(tmp_path / name, texts), tmp_path / "ids.bin"
    done = lmlab("tokenizer", "encode", folder, path, "--out", out, "--quiet")
    assert done.returncode == 0, done.stderr
    tokenizer = Tokenizer.load(folder)
    expected: list[int] = []
    for ids in tokenizer.encode_batch(texts, special="text"):
        expected += [*ids.tolist(), tokenizer.special_tokens[END]]
    assert np.fromfile(out, tokenizer.dtype).tolist() == expected
    size = sum(len(text.encode()) for text in texts)
    assert f"{len(expected)} ids" in done.stdout
    assert f"{size} bytes" in done.stdout
    done = lmlab("tokenizer", "compare", folder, "--on", path)
    assert f"{size / (len(expected) - len(texts)):.2f}" in done.stdout


def test_special_tokens_in_rows_are_never_parsed(tmp_path: Path, folder: Path) -> None:
    path, out = write_rows(tmp_path / "a.jsonl", [f"three {END} four"]), tmp_path / "ids.bin"
    encode = ("tokenizer", "encode", folder, path, "--out", out, "--quiet")
    for special in ("parse", "error"):
        refused(lmlab(*encode, "--special", special), f"--special {special}", "rows", "--raw")
    assert not out.exists()
    assert lmlab(*encode, "--special", "text").returncode == 0
    refused(lmlab(*encode, "--special", "error", "--raw"), "special token", "at byte")


@pytest.mark.parametrize("name", ["a.jsonl.zst", "a.parquet"])
def test_training_on_documents_in_rows(tmp_path: Path, name: str) -> None:
    texts = ["hello hello low lower", "lowest newer hello", "hello low low"] * 3
    path, out = write_rows(tmp_path / name, texts, "body"), tmp_path / "tok"
    train = ("tokenizer", "train", path, "--vocab-size", 270, "--out", out, "--quiet")
    refused(lmlab(*train), name, "'text'", "'body'", "--field")
    done = lmlab(*train, "--field", "body")
    assert done.returncode == 0, done.stderr
    _, merges = train_bpe(iter(texts), 270, documents=True)
    assert Tokenizer.load(out).merges == merges


def test_rows_and_text_together_are_refused(tmp_path: Path, folder: Path) -> None:
    rows, out = write_rows(tmp_path / "a.jsonl", ["one"]), tmp_path / "ids.bin"
    text, array = tmp_path / "b.txt", tmp_path / "c.json"
    text.write_text("plain")
    array.write_text('[{"text": "one"}]')
    refused(lmlab("tokenizer", "encode", folder, rows, text, "--out", out), "one kind", "--raw")
    refused(lmlab("tokenizer", "encode", folder, array, "--out", out), "one object a line", "jq")


@pytest.mark.parametrize("name", ["a.json.gz", "a.jsonl", "a.txt"])
def test_json_may_be_read_as_text(tmp_path: Path, folder: Path, name: str) -> None:
    path, out = tmp_path / name, tmp_path / "ids.bin"
    lines = b'{"text": "one"}\n{"text": "two"}\n'
    path.write_bytes(gzip.compress(lines) if name.endswith(".gz") else lines)
    done = lmlab("tokenizer", "encode", folder, path, "--out", out, "--raw", "--quiet")
    assert done.returncode == 0
    assert b"".join(Tokenizer.load(folder).decode_file(out)) == lines
