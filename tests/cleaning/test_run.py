"""Whole runs: the same result in every way of running, after every kind of interruption."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import zstandard
from corpus import RECIPE, config, content, documents, text, write_corpus

from lmlab.cleaning.job import MANIFEST, open_job, start
from lmlab.cleaning.manifest import read_manifest
from lmlab.cleaning.plan import plan, run_task
from lmlab.cleaning.run import clean
from lmlab.errors import UserError
from lmlab.files import atomic_write
from tests_support import ROOT

FAULTY = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from lmlab import files
calls = 0
{patch}
from lmlab.cleaning.job import start
from lmlab.cleaning.local import _work
from lmlab.cleaning.plan import plan
from corpus import config
job = start(config(Path({inputs!r}), Path({output!r})), sorted(Path({inputs!r}).iterdir()))
for number, phase in enumerate(plan(job)):
    for task in range(phase.tasks):
        problem = _work({output!r}, number, task)
        if problem:
            sys.exit(problem)
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def expected(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    output = tmp_path_factory.mktemp("expected")
    clean(config(corpus, output, "executor.workers=1"), progress=False)
    return content(output)


def test_a_run_accounts_for_every_document(
    corpus: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    clean(config(corpus, tmp_path, "executor.workers=2"), progress=False)
    manifest = read_manifest(open_job(tmp_path))
    kept, removed = documents(tmp_path), documents(tmp_path, "removed")
    assert manifest["documents"] == 120 == len(kept) + len(removed)
    assert manifest["kept"] == len(kept) > 0
    ids = [document.id for document in (*kept, *removed)]
    assert len(set(ids)) == len(ids)
    by_reason: dict[tuple[str, str], int] = {}
    for document in removed:
        assert document.removal is not None
        key = document.removal.step, document.removal.reason
        by_reason[key] = by_reason.get(key, 0) + 1
    assert by_reason == {
        (step, reason): count
        for step, found in manifest["steps"].items()
        for reason, count in found["removed"].items()
    }
    assert {("gopher", "words"), ("minhash", "duplicate")} <= by_reason.keys()
    assert all("|||EMAIL_ADDRESS|||" not in document.id for document in kept)
    assert content(tmp_path) == expected  # of one worker


@pytest.mark.slow
def test_datatrove_gives_the_same(corpus: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    pytest.importorskip("datatrove")
    clean(config(corpus, tmp_path, "executor=datatrove", "executor.workers=2"), progress=False)
    assert content(tmp_path) == expected


@pytest.mark.slow
def test_ray_gives_the_same(corpus: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    pytest.importorskip("datatrove")
    ray = pytest.importorskip("ray")
    overrides = ("executor=ray", "executor.workers=2", "executor.mem_per_cpu_gb=0.1")
    try:
        clean(config(corpus, tmp_path, *overrides), progress=False)
    finally:
        ray.shutdown()
    assert content(tmp_path) == expected


@pytest.mark.slow
@pytest.mark.parametrize("after", [0.3, 1.2, 1.8, 2.2, 2.6])
def test_a_killed_run_resumes(
    corpus: Path, expected: dict[str, bytes], tmp_path: Path, after: float
) -> None:
    """kill -9 of the command; its workers end by themselves, and the next start does the rest."""
    output = tmp_path / "output"
    command = [sys.executable, str(ROOT / "clean.py"), f"input='{corpus}'", f"output='{output}'"]
    process = subprocess.Popen([*command, *RECIPE], stderr=subprocess.DEVNULL)
    time.sleep(after)
    process.kill()
    process.wait()
    done = subprocess.run([*command, *RECIPE], capture_output=True, text=True, check=True)
    assert "documents" in done.stdout
    assert content(output) == expected


@pytest.mark.parametrize("call", [1, 2, 3, 7, 12, 20, 31, 45, 60])
def test_killed_at_any_file(
    corpus: Path, expected: dict[str, bytes], tmp_path: Path, call: int
) -> None:
    """The process dies as a file is about to get its name, at every part of the plan."""
    patch = f"""
import os, signal
original = files.share
def share(path):
    global calls
    calls += 1
    if calls == {call}:
        os.kill(os.getpid(), signal.SIGKILL)
    original(path)
files.share = share
"""
    done = _faulty(corpus, tmp_path, patch)
    assert done.returncode in (-signal.SIGKILL, 0)
    clean(config(corpus, tmp_path, "executor.workers=1"), progress=False)
    assert content(tmp_path) == expected


def test_a_full_disk_is_one_line_and_the_run_resumes(
    corpus: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    patch = """
import errno
original = files.share
def share(path):
    global calls
    calls += 1
    if calls == 15:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))
    original(path)
files.share = share
"""
    done = _faulty(corpus, tmp_path, patch)
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "start again to resume" in done.stderr
    assert not list(tmp_path.rglob("*.tmp"))
    clean(config(corpus, tmp_path, "executor.workers=1"), progress=False)
    assert content(tmp_path) == expected


def _faulty(corpus: Path, output: Path, patch: str) -> "subprocess.CompletedProcess[str]":
    tests = str(Path(__file__).parent)
    script = FAULTY.format(tests=tests, patch=patch, inputs=str(corpus), output=str(output))
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)


def test_tasks_may_be_done_twice_and_in_any_order(
    corpus: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    """As after a worker that was thought dead, or a requeued element of a job array."""
    from lmlab.cleaning.job import start
    from lmlab.cleaning.manifest import finish

    job = start(config(corpus, tmp_path), sorted(corpus.iterdir()))
    generator = random.Random(1)
    for phase in plan(job):
        tasks = list(range(phase.tasks))
        generator.shuffle(tasks)
        for task in tasks:
            run_task(job, phase, task)
        phase.run(tasks[0], lambda *_: None)
    finish(job)
    assert content(tmp_path) == expected


def test_a_finished_run_is_not_repeated(corpus: Path, tmp_path: Path) -> None:
    settings = config(corpus, tmp_path, "executor.workers=1")
    first = clean(settings, progress=False)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.zst")}
    assert clean(settings, progress=False) == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.zst")} == times


def test_another_configuration_is_refused(corpus: Path, tmp_path: Path) -> None:
    clean(config(corpus, tmp_path, "executor.workers=1"), progress=False)
    with pytest.raises(UserError, match=r"cleaning.steps.gopher.min_words: 50 -> 20"):
        clean(config(corpus, tmp_path, "cleaning.steps.gopher.min_words=20"), progress=False)
    with pytest.raises(UserError, match="other input files"):
        clean(config(corpus / "part-0.jsonl", tmp_path), progress=False)
    full = tmp_path / "full"
    (full / "notes").mkdir(parents=True)
    with pytest.raises(UserError, match="holds notes but no cleaning run"):
        clean(config(corpus, full), progress=False)


def test_other_evaluation_files_are_refused(corpus: Path, tmp_path: Path) -> None:
    tests = tmp_path / "tests.jsonl"
    tests.write_text(json.dumps({"text": text(random.Random(1))}) + "\n")
    steps = ",".join(["kind: decontaminate", f"paths: [{tests}]", "field: text", "ngrams: 13"])
    step = f"+cleaning.steps.decontaminate={{{steps}, max_shared_ngrams: 0}}"
    settings = config(corpus / "part-0.jsonl", tmp_path / "out", "executor.workers=1", step)
    first = clean(settings, progress=False)
    assert clean(settings, progress=False) == first
    tests.write_text(json.dumps({"text": text(random.Random(2))}) + "\n")
    begun = json.loads((tmp_path / "out" / "job.json").read_text())
    with pytest.raises(UserError, match=r"other models or evaluation files \(first: .*tests.jsonl"):
        clean(settings, progress=False)
    del begun["step_files"]  # as earlier versions began runs
    (tmp_path / "out" / "job.json").write_text(json.dumps(begun))
    assert clean(settings, progress=False) == first


def test_parquet_holds_the_same_documents(corpus: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    for format in ("jsonl", "parquet"):
        clean(config(corpus, tmp_path / format, f"format={format}"), progress=False)
    assert documents(tmp_path / "jsonl") == documents(tmp_path / "parquet")


def test_empty_inputs_give_empty_shards(tmp_path: Path) -> None:
    inputs = tmp_path / "in"
    inputs.mkdir()
    (inputs / "a.jsonl").write_bytes(b"")
    (inputs / "b.txt").write_bytes(b"")
    (inputs / "c.jsonl.zst").write_bytes(zstandard.compress(b""))
    clean(config(inputs, tmp_path / "out", "executor.workers=1"), progress=False)
    manifest = read_manifest(open_job(tmp_path / "out"))
    assert (manifest["documents"], manifest["kept"], manifest["problems"]) == (0, 0, 0)
    assert len(list((tmp_path / "out" / "shards").iterdir())) == 3


def test_a_document_of_a_gigabyte_takes_bounded_memory(tmp_path: Path) -> None:
    """It is passed over, with its offset; the limit on memory would stop a reader that holds it."""
    good = json.dumps({"text": text(random.Random(3))}).encode() + b"\n"
    path = tmp_path / "huge.jsonl.zst"
    compressor = zstandard.ZstdCompressor(level=1)
    with path.open("wb") as file, compressor.stream_writer(file) as out:
        out.write(good + b'{"text": "')
        for _ in range(1024):
            out.write(b"x" * (1 << 20))
        out.write(b'"}\n' + good.replace(b"the", b"then"))
    script = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_DATA, (600 << 20, 600 << 20))\n"
        "from pathlib import Path\n"
        "from lmlab.cleaning.pipeline_config import ReadConfig\n"
        "from lmlab.cleaning.reading import read_documents\n"
        "config = ReadConfig(field='text', separator=None, max_document_bytes=1 << 26)\n"
        "problems = []\n"
        "found = list(read_documents(Path(sys.argv[1]), config, problems.append))\n"
        "print(len(found), [(p.offset, p.reason) for p in problems])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(f"2 [({len(good)}, 'a document of 1,073,741,8")


def test_a_worker_that_is_killed_is_one_line(corpus: Path, tmp_path: Path) -> None:
    """As by the kernel when the memory is full; the run resumes afterwards."""
    output = tmp_path / "out"
    command = [sys.executable, str(ROOT / "clean.py"), f"input='{corpus}'", f"output='{output}'"]
    process = subprocess.Popen(
        [*command, *RECIPE], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not children.exists():
        process.kill()
        pytest.skip("the kernel does not list children")
    victim = None
    while victim is None and process.poll() is None:
        for child in children.read_text().split():
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                victim = int(child)
        time.sleep(0.01)
    assert victim is not None
    os.kill(victim, signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode == 1
    assert errors.strip().splitlines()[-1].startswith("a worker process was killed")


def test_files_that_another_process_is_writing_stay(
    corpus: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    """A local run beside jobs on Slurm, which hold no lock of the run."""
    job = start(config(corpus, tmp_path, "executor.workers=1"), sorted(corpus.iterdir()))
    abandoned = job.shard(1).with_name(".00001.jsonl.zst.x.tmp")
    with atomic_write(job.shard(0), "wb") as shard:
        abandoned.touch()
        clean(job.config, progress=False)
        assert not abandoned.exists()
        shard.write(expected[job.shard(0).relative_to(tmp_path).as_posix()])
    assert content(tmp_path) == expected


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b"1", b'{"documents": 1}', b"\xff", b"[" * 9999]
)
def test_a_damaged_manifest_is_one_line(corpus: Path, tmp_path: Path, damage: bytes) -> None:
    job = start(config(corpus, tmp_path, "executor.workers=1"), sorted(corpus.iterdir()))
    (tmp_path / MANIFEST).write_bytes(damage)
    with pytest.raises(UserError, match=r"manifest.json is damaged \(.*\); remove it, and start"):
        read_manifest(job)
    with pytest.raises(UserError, match="is damaged"):
        clean(job.config, progress=False)
