"""A small trained run, and servers of it in a thread."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from lmlab.serving.guard import Access, Limits
from lmlab.serving.models import ServedModel, load_models
from lmlab.serving.server import Server, listen, url_of
from tests_support import ROOT

LINE = "<script>alert('é€😀')</script> & more\n"
"""What the run has learned to repeat: mark-up, and characters of two to four bytes."""
SMALL = (
    "tokenizer=byte", "data=text", r"data.separator='\n\n'", "model.d_model=48",
    "model.num_layers=2", "model.num_heads=2", "model.d_ff=96", "model.context_length=128",
    "budget.steps=120", "trainer.batch_size=8", "trainer.eval_every=120", "lr=0.02",
    "trainer.eval_windows=2", "trainer.checkpoint_every=60", "trainer.device=cpu",
    "trainer.precision=fp32", "task.sample.tokens=8",
)  # fmt: skip


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run that continues LINE."""
    folder = tmp_path_factory.mktemp("served")
    text = "\n\n".join(f"{i}\n{LINE * 20}" for i in range(40))
    (folder / "lines.txt").write_text(text, encoding="utf-8")
    command = [
        sys.executable, str(ROOT / "train.py"), *SMALL, "name=lines",
        "data.paths=[lines.txt]", "data.cache_dir=cache", "hydra.run.dir=run",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "run"


@dataclass
class Running:
    """A server in a thread."""

    url: str
    port: int
    models: list[ServedModel]
    server: Server

    @property
    def held(self) -> int:
        """Sequences that the engines hold."""
        return sum(model.worker.running for model in self.models)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let the first model's engine wait."""
        gate = threading.Event()
        self.models[0].worker._commands.put(lambda: gate.wait(60) and None)
        try:
            yield
        finally:
            gate.set()

    def wait_until_free(self) -> None:
        """Wait until no engine holds a sequence."""
        end = time.monotonic() + 30
        while self.held or any(model.worker.open for model in self.models):
            assert time.monotonic() < end, "sequences are still generated"
            time.sleep(0.01)


Start = Callable[..., Running]


@contextmanager
def running(
    paths: list[Path],
    *,
    limits: Limits | None = None,
    access: Access | None = None,
    max_batch: int = 8,
    max_queue: int = 64,
    template: Path | None = None,
) -> Iterator[Running]:
    """Serve runs on a free port of this machine."""
    models = load_models(
        paths, device="cpu", dtype="fp32",
        max_batch=max_batch, max_queue=max_queue, template=template,
    )  # fmt: skip
    started = threading.Event()
    server = Server(
        models,
        access=access or Access.of("127.0.0.1"),
        limits=limits or Limits(grace_seconds=2),
        started=started.set,
    )
    with listen("127.0.0.1", 0) as socket:
        url, port = url_of(socket), socket.getsockname()[1]
        thread = threading.Thread(target=lambda: server.run(sockets=[socket]))
        thread.start()
        assert started.wait(60)
        try:
            yield Running(url, port, models, server)
        finally:
            server.stop()
            thread.join(60)
            assert not thread.is_alive()


@pytest.fixture
def start(trained: Path) -> Iterator[Start]:
    """Start servers of the run that stop with the test."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(
            running(options.pop("paths", [trained]), **options)
        )


@pytest.fixture(scope="module")
def served(trained: Path) -> Iterator[Running]:
    """One server for the tests of a module."""
    with running([trained]) as it:
        yield it
