"""Servers of trained runs in a thread."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from socket import SO_SNDBUF, SOL_SOCKET

from lmlab.serving.guard import Access, Limits
from lmlab.serving.models import ServedModel, load_models
from lmlab.serving.server import Server, listen, url_of

LINE = "<script>alert('é€😀')</script> & more\n"
"""What the run has learned to repeat: mark-up, and characters of two to four bytes."""


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
    send_buffer: int | None = None,
) -> Iterator[Running]:
    """Serve runs on a free port of this machine.

    `send_buffer` is how many bytes the system keeps for a client that does not read.
    """
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
        if send_buffer is not None:  # which connections take from the listening socket
            socket.setsockopt(SOL_SOCKET, SO_SNDBUF, send_buffer)
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
