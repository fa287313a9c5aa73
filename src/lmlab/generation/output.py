"""What `lmlab generate` prints: texts or JSON lines to stdout, all else to stderr."""

import json
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tqdm import tqdm

from lmlab.generation.engine import Engine, Generation
from lmlab.generation.interrupts import deferred_interrupt
from lmlab.generation.options import Options
from lmlab.text import duration

_ESCAPED = {
    code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if code not in (9, 10)
}


@dataclass(frozen=True)
class Request:
    """One sample of one prompt."""

    prompt: str
    generation: Generation
    title: str
    """Which prompt and which seed it is; empty for the only one."""


def submit(engine: Engine, prompts: Sequence[str], options: Options, samples: int) -> list[Request]:
    """Queue the samples of all prompts; sample i has the seed `options.seed + i`."""
    requests = []
    for number, prompt in enumerate(prompts, 1):
        ids = engine.tokenizer.encode(prompt)
        for seed in range(options.seed, options.seed + samples):
            parts = [f"prompt {number}"] if len(prompts) > 1 else []
            parts += [f"seed {seed}"] if samples > 1 else []
            generation = engine.submit(ids, replace(options, seed=seed))
            requests.append(Request(prompt, generation, ", ".join(parts)))
    return requests


def note_prompts(requests: Sequence[Request], context_length: int) -> None:
    """Say which prompts are cropped to the context, and which are empty."""
    cropped = {r.prompt: r.generation.cropped for r in requests if r.generation.cropped}
    if cropped:
        longest = context_length + max(cropped.values())
        which = "the prompt has" if len(requests) == 1 else "a prompt has"
        if len(cropped) > 1:
            which = f"{len(cropped):,} prompts have up to"
        note(
            f"{which} {longest:,} tokens, the context {context_length:,}: "
            f"only the last {context_length:,} are read"
        )
    if any(not request.prompt for request in requests):
        note("an empty prompt: the text begins a document")


def print_stream(engine: Engine, request: Request) -> None:
    """Print one prompt and its continuation as it comes."""
    write(request.prompt)
    began, last = time.perf_counter(), request.prompt
    with deferred_interrupt() as interrupt:
        for piece in engine.run():
            write(piece.text)
            last = piece.text or last
            if interrupt.requested:
                break
    write("" if last.endswith("\n") else "\n")
    _summarize([request], time.perf_counter() - began)
    if interrupt.requested:
        raise KeyboardInterrupt


def print_batch(engine: Engine, requests: Sequence[Request], as_json: bool) -> None:
    """Print all texts in order; after Ctrl-C those that are finished."""
    began = time.perf_counter()
    shown = len(requests) > 1 and sys.stderr is not None and sys.stderr.isatty()
    with (
        deferred_interrupt() as interrupt,
        tqdm(total=len(requests), unit="text", disable=not shown, dynamic_ncols=True) as bar,
    ):
        pending = deque(requests)
        while engine.busy and not interrupt.requested:
            pieces = engine.step()
            bar.update(sum(piece.sequence.finish_reason is not None for piece in pieces))
            while pending and pending[0].generation.finish_reason is not None:
                _print(pending.popleft(), as_json)
        for request in pending:  # after Ctrl-C
            if request.generation.finish_reason is not None:
                _print(request, as_json)
    _summarize(requests, time.perf_counter() - began)
    if interrupt.requested:
        raise KeyboardInterrupt


def _print(request: Request, as_json: bool) -> None:
    generation = request.generation
    if as_json:
        values = {
            "prompt": request.prompt,
            "text": generation.text,
            "finish_reason": generation.finish_reason,
            "tokens": generation.tokens,
            "seed": generation.options.seed,
            "cropped": generation.cropped,
        }
        text = json.dumps(values, ensure_ascii=False) + "\n"
    else:
        text = request.prompt + generation.text
        text += "" if text.endswith("\n") else "\n"
        if request.title:
            text = f"=== {request.title} ===\n{text}\n"
    with tqdm.external_write_mode(file=sys.stdout):
        write(text)


def _summarize(requests: Sequence[Request], seconds: float) -> None:
    tokens = sum(len(request.generation.tokens) for request in requests)
    finished = sum(request.generation.finish_reason is not None for request in requests)
    texts = f"{finished:,} of {len(requests):,} texts, " if len(requests) > 1 else ""
    note(f"{texts}{tokens:,} tokens in {duration(seconds)}: {tokens / seconds:,.0f} tokens/s")


def write(text: str) -> None:
    """Print text at once; a terminal gets escapes for control characters."""
    if sys.stdout.isatty():
        text = visible(text)
    sys.stdout.write(text)
    sys.stdout.flush()


def visible(text: str) -> str:
    """Return text without control characters that a terminal would obey."""
    return text.translate(_ESCAPED)


def note(line: str) -> None:
    """Print one line to stderr."""
    tqdm.write(f"lmlab: {line}", file=sys.stderr)
