"""The thread that generates: one engine, whose batch the requests of all clients share."""

import asyncio
import queue
import sys
import threading
import traceback
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch

from lmlab.generation.engine import Engine, Generation, Piece
from lmlab.generation.options import Options
from lmlab.generation.sampler import of_tokens
from lmlab.serving.errors import SERVER, ApiError, overloaded, stopping

T = TypeVar("T")


@dataclass(frozen=True)
class Scored:
    """A token with its log-probability and the likeliest tokens at its place."""

    id: int
    logprob: float | None = None
    """None: it was not asked for, or the token is the first of a document."""
    alternatives: Sequence[tuple[int, float]] = ()


@dataclass(frozen=True)
class Update:
    """What one step added to a sequence."""

    index: int
    """Of the sequence in its ticket."""
    text: str = ""
    tokens: tuple[Scored, ...] = ()
    finish_reason: str | None = None
    error: ApiError | None = None


class Ticket:
    """The sequences of one request; iterating yields updates until all have finished."""

    def __init__(self, worker: "Worker", size: int) -> None:
        self.worker = worker
        self.open = size
        self.updates: asyncio.Queue[Update] = asyncio.Queue()
        self.generations: list[Generation] = []
        """Of the worker's thread."""

    async def __aiter__(self) -> AsyncIterator[Update]:
        """Yield updates; raises ApiError when the engine fails or the server stops."""
        while self.open or not self.updates.empty():
            update = await self.updates.get()
            if update.error is not None:
                raise update.error
            yield update

    def cancel(self) -> None:
        """Remove what is not finished from the batch and the queue."""
        self.worker.cancel(self)


class Worker:
    """Runs an engine in a thread of its own.

    All methods but those with an underscore belong to the event loop's thread.
    """

    def __init__(self, engine: Engine, max_queue: int) -> None:
        self.engine = engine
        self.capacity = engine.max_batch + max_queue
        """Sequences that are generated or wait, at most."""
        self.open = 0
        self._tickets: set[Ticket] = set()
        self._running: dict[Generation, tuple[Ticket, int]] = {}
        self._sent: dict[Generation, int] = {}
        self._commands: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._work, name="lmlab-engine", daemon=True)
        self._thread.start()

    @property
    def running(self) -> int:
        """Sequences that the engine holds."""
        return len(self._running)

    def submit(self, sequences: Sequence[tuple[Sequence[int], Options]]) -> Ticket:
        """Queue the sequences of a request; raises ApiError (400, 429) for too many."""
        self._reserve(len(sequences))
        self._loop = asyncio.get_running_loop()
        ticket = Ticket(self, len(sequences))
        self._tickets.add(ticket)
        self._commands.put(partial(self._begin, ticket, sequences))
        return ticket

    def cancel(self, ticket: Ticket, error: ApiError | None = None) -> None:
        """End a ticket; its iterator raises `error` if there is one."""
        if ticket not in self._tickets:
            return
        self._forget(ticket, ticket.open)
        if error is not None:
            ticket.updates.put_nowait(Update(0, error=error))
        self._commands.put(partial(self._cancel, ticket))

    def cut(self) -> None:
        """End all tickets: the server stops."""
        for ticket in list(self._tickets):
            self.cancel(ticket, stopping())

    async def score(self, prompts: Sequence[Sequence[int]], top: int) -> list[list[Scored]]:
        """Return the tokens of prompts with what the model expected; a first one has no score.

        Raises ApiError (400, 429) for too many prompts.
        """
        self._reserve(len(prompts))
        try:
            return [await self._call(partial(score, self.engine, ids, top)) for ids in prompts]
        finally:
            self.open -= len(prompts)

    async def close(self) -> None:
        """End the thread after the step that it computes."""
        self._commands.put(None)
        await asyncio.get_running_loop().run_in_executor(None, self._thread.join)

    def check_size(self, count: int) -> None:
        """Raise ApiError (400) for more sequences in a request than the queue can ever take."""
        if count > self.capacity:
            raise ApiError(
                400,
                f"{count} sequences in one request; this server takes {self.capacity}. "
                "Send fewer prompts or samples.",
                param="n",
            )

    def _reserve(self, count: int) -> None:
        self.check_size(count)
        if self.open + count > self.capacity:
            raise overloaded(self.open)
        self.open += count

    async def _call(self, function: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def settle(set_: Callable[[], None]) -> None:
            if not future.done():
                set_()

        def run() -> None:
            try:
                result = function()
            except Exception as error:
                loop.call_soon_threadsafe(settle, partial(future.set_exception, error))
            else:
                loop.call_soon_threadsafe(settle, partial(future.set_result, result))

        self._commands.put(run)
        return await future

    def _forget(self, ticket: Ticket, count: int) -> None:
        ticket.open -= count
        self.open -= count
        if ticket.open == 0:
            self._tickets.discard(ticket)

    def _deliver(self, updates: list[tuple[Ticket, Update]]) -> None:
        for ticket, update in updates:
            if ticket not in self._tickets:
                continue  # cancelled meanwhile
            if update.error is not None:
                self.cancel(ticket, update.error)
                continue
            ticket.updates.put_nowait(update)
            if update.finish_reason is not None:
                self._forget(ticket, 1)

    # What follows runs in the worker's thread.

    def _work(self) -> None:
        while True:
            try:
                while not self.engine.busy or not self._commands.empty():
                    command = self._commands.get()
                    if command is None:
                        return
                    command()
                self._send([self._update(piece) for piece in self.engine.step()])
            except Exception:
                self._fail(traceback.format_exc(), {t for t, _ in self._running.values()})

    def _send(self, updates: list[tuple[Ticket, Update]]) -> None:
        if updates and self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed: nobody listens
                self._loop.call_soon_threadsafe(self._deliver, updates)

    def _begin(self, ticket: Ticket, sequences: Sequence[tuple[Sequence[int], Options]]) -> None:
        try:
            for index, (ids, options) in enumerate(sequences):
                generation = self.engine.submit(ids, options)
                ticket.generations.append(generation)
                self._running[generation] = (ticket, index)
        except Exception:
            self._fail(traceback.format_exc(), [ticket])

    def _cancel(self, ticket: Ticket) -> None:
        for generation in ticket.generations:
            if self._running.pop(generation, None) is not None:
                self._sent.pop(generation, None)
                self.engine.cancel(generation)

    def _update(self, piece: Piece) -> tuple[Ticket, Update]:
        generation = piece.sequence
        ticket, index = self._running[generation]
        start, end = self._sent.get(generation, 0), len(generation.tokens)
        if generation.options.logprobs is None:
            tokens = tuple(Scored(i) for i in generation.tokens[start:])
        else:
            parts = (generation.tokens, generation.logprobs, generation.alternatives)
            tokens = tuple(
                Scored(*values) for values in zip(*(part[start:end] for part in parts), strict=True)
            )
        self._sent[generation] = end
        reason = generation.finish_reason
        if reason is not None:
            del self._running[generation], self._sent[generation]
        return ticket, Update(index, piece.text, tokens, reason)

    def _fail(self, trace: str, tickets: Iterable[Ticket]) -> None:
        """Report a fault to the clients of these tickets; the loop then cancels them."""
        print(trace, file=sys.stderr, flush=True)
        error = ApiError(500, "The engine failed; see the server's output.", kind=SERVER)
        failed = list(tickets)
        for ticket in failed:
            self._cancel(ticket)
        self._send([(ticket, Update(0, error=error)) for ticket in failed])


@torch.inference_mode()
def score(engine: Engine, ids: Sequence[int], top: int) -> list[Scored]:
    """Return tokens with their log-probabilities and `top` alternatives, given those before."""
    if not ids:
        return []
    logits = engine.model(torch.tensor([list(ids)], device=engine.device))[0, :-1]
    known = of_tokens(logits, engine.tokenizer.vocab_size, engine.unused)
    logprobs = known.log_softmax(-1)
    best = logprobs.topk(min(top, logprobs.shape[1]), dim=-1)
    rows = zip(ids[1:], logprobs, best.indices.tolist(), best.values.tolist(), strict=True)
    first = Scored(ids[0])
    return [first, *(Scored(i, float(row[i]), list(zip(*a, strict=True))) for i, row, *a in rows)]
