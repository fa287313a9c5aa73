"""Rewards of many responses, where a reward that fails costs one response and not the run."""

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Literal, Self

from lmlab.alignment.rewards.registry import reward_function
from lmlab.alignment.rewards.reward import NO_REWARD, Reward, checked
from lmlab.errors import UserError

Failure = Literal["error", "deadline"]
"""The reward raised or returned no finite numbers, or it took too long."""
START_SECONDS = 120.0
"""How long the import of a reward may take."""


class Grader:
    """Computes the rewards of responses; use it as a context manager, or call `close`.

    With a deadline in seconds the reward runs in child processes, and one that takes longer is
    killed. Without, it runs in this process. A reward that fails is zero and is counted.
    """

    def __init__(self, name: str, deadline: float | None = None, processes: int = 1) -> None:
        self.name, self.deadline = name, deadline
        self.failures: Counter[Failure] = Counter()
        """Responses without a reward since the beginning."""
        self.last_error = ""
        """What the last reward that failed raised."""
        self._function = reward_function(name)  # also where children compute it: says what is wrong
        self._free: SimpleQueue[_Worker] = SimpleQueue()
        self._processes = processes if deadline is not None else 0
        self._workers = [_Worker(name) for _ in range(self._processes)]
        for worker in self._workers:
            self._free.put(worker)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child processes."""
        for worker in self._workers:
            worker.stop()

    def __call__(self, requests: Sequence[tuple[str, str, str]]) -> list[Reward]:
        """Return the reward of each (prompt, response, truth)."""
        if self.deadline is None:
            return [self._here(request) for request in requests]
        with ThreadPoolExecutor(self._processes) as threads:
            return list(threads.map(self._in_child, requests))

    def _here(self, request: tuple[str, str, str]) -> Reward:
        try:
            return checked(self._function(*request))
        except Exception as error:  # whatever a function of the user's raises
            return self._failed("error", f"{type(error).__name__}: {error}")

    def _in_child(self, request: tuple[str, str, str]) -> Reward:
        assert self.deadline is not None
        worker = self._free.get()
        try:
            answer = worker.ask(request, self.deadline)
        finally:
            self._free.put(worker)
        if answer is None:
            return self._failed("deadline", f"no reward within {self.deadline:g} s")
        if "error" in answer:
            return self._failed("error", answer["error"])
        return Reward(**answer)

    def _failed(self, failure: Failure, text: str) -> Reward:
        self.failures[failure] += 1
        self.last_error = text
        return NO_REWARD


class _Worker:
    """A child process, started when it is needed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.process: subprocess.Popen[bytes] | None = None
        self._unread = b""

    def ask(self, request: tuple[str, str, str], seconds: float) -> dict[str, Any] | None:
        """Return the answer; None when there is none in time, and the process is killed.

        Raises UserError when the process cannot start.
        """
        if self.process is None or self.process.poll() is not None:
            self._start()
        assert self.process is not None
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
        try:
            return self._answer(seconds)
        except EOFError:
            code = self.process.wait()
            self.stop()
            return {"error": f"its process ended with exit code {code}"}
        except TimeoutError:
            self.stop()
            return None

    def stop(self) -> None:
        """Kill the process."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
        self.process, self._unread = None, b""

    def _start(self) -> None:
        self.stop()
        paths = os.pathsep.join([str(Path.cwd()), *filter(None, sys.path)])
        # The threads of numerical libraries would compete with the run's own.
        environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lmlab.alignment.rewards.worker", self.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the run
        )
        try:
            started = self._answer(START_SECONDS)
        except (EOFError, TimeoutError):
            started = {"error": "its process did not start"}
        if "error" in started:
            self.stop()
            raise UserError(f"reward '{self.name}': {started['error']}")

    def _answer(self, seconds: float) -> dict[str, Any]:
        """Return the next line; raises TimeoutError, and EOFError when the process has ended."""
        assert self.process is not None
        assert self.process.stdout is not None
        end = time.monotonic() + seconds
        while b"\n" not in self._unread:
            ready, _, _ = select.select(
                [self.process.stdout], [], [], max(0, end - time.monotonic())
            )
            if not ready:
                raise TimeoutError
            piece = os.read(self.process.stdout.fileno(), 1 << 16)
            if not piece:
                raise EOFError
            self._unread += piece
        line, _, self._unread = self._unread.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found
