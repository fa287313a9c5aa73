"""The server under load, beside transformers on the same weights, the shape of tinystories.

    python benchmarks/serving.py [--rounds 2] [--tokens 64] [--threads 2] [--clients 1 8 32]

Each contender is a process that serves `/v1/completions` as a stream: lmlab with 32 sequences in a
batch, lmlab with one at a time, and a plain server around `transformers.generate`, one request at a
time. Clients ask for the same prompts and lengths at temperature 0, one request after another.
Contenders are interleaved; latencies are over all requests, rates are medians over rounds.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import httpx
import torch

from lmlab.hydra_app import compose
from lmlab.loading import TrainedRun
from lmlab.model import build
from lmlab.tokenizer import Tokenizer

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.generation import VOCAB  # noqa: E402
from benchmarks.llama import llama_of  # noqa: E402
from benchmarks.tables import machine, markdown  # noqa: E402

CONTENDERS = ("transformers", "lmlab, one at a time", "lmlab")
BATCH, PROMPT = 32, 32


def trained() -> TrainedRun:
    """A model with random weights, and words for its tokens."""
    torch.manual_seed(0)
    config = compose("model=tinystories")
    model = build(config.model, VOCAB).eval()
    words = {i: bytes([i]) if i < 256 else f" {i}".encode() for i in range(VOCAB)}
    return TrainedRun(model, Tokenizer(words, []), config, 0, Path())


def contend(name: str) -> None:
    """Serve in this process; prints the address."""
    if name == "transformers":
        serve_transformers(trained())
        return
    from lmlab.serving.guard import Access, Limits
    from lmlab.serving.models import ServedModel
    from lmlab.serving.server import Server, listen, serve, url_of

    model = ServedModel(trained(), "lmlab", max_batch=BATCH if name == "lmlab" else 1)
    listening = listen("127.0.0.1", 0)
    url = url_of(listening)
    access = Access.of("127.0.0.1")
    server = Server([model], access=access, limits=Limits(), started=lambda: print(url, flush=True))
    serve(server, listening)


def serve_transformers(run: TrainedRun) -> None:
    """Answer one request at a time with `transformers.generate`."""
    theirs, lock = llama_of(run.model), threading.Lock()

    class Streamer:
        """Sends each token as an event."""

        def __init__(self, out: BufferedIOBase) -> None:
            self.out = out

        def put(self, value: torch.Tensor) -> None:
            if value.numel() == 1:  # else it is the prompt
                text = run.tokenizer.decode(value.flatten().tolist())
                self.out.write(f"data: {json.dumps(text)}\n\n".encode())

        def end(self) -> None:
            pass

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            ids = torch.tensor([body["prompt"]])
            self.send_response(200)
            self.end_headers()
            with lock:
                theirs.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    max_new_tokens=body["max_tokens"],
                    do_sample=False,
                    streamer=Streamer(self.wfile),
                )
            self.wfile.write(b"data: [DONE]\n\n")

        def log_message(self, format: str, *args: Any) -> None:
            pass

    ThreadingHTTPServer.request_queue_size = 128  # all clients connect at once
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


@dataclass
class Load:
    """What was measured for a contender at a number of clients."""

    first: list[float] = field(default_factory=list)
    """Seconds to the first token, of each request."""
    total: list[float] = field(default_factory=list)
    requests: list[float] = field(default_factory=list)
    """Requests a second, of each round."""


async def measure(url: str, clients: int, each: int, tokens: int, load: Load) -> None:
    """Let clients ask, and add what they see."""
    body = {"max_tokens": tokens, "temperature": 0, "stream": True}

    async def ask(client: httpx.AsyncClient, number: int) -> None:
        for i in range(each):
            prompt = [(number * 31 + i * 7 + j * 13) % VOCAB for j in range(PROMPT)]
            started, first = time.perf_counter(), None
            request = client.stream("POST", f"{url}/v1/completions", json=body | {"prompt": prompt})
            async with request as answer:
                assert answer.status_code == 200, await answer.aread()
                async for _ in answer.aiter_bytes():
                    first = first or time.perf_counter() - started
            load.first.append(first or 0)
            load.total.append(time.perf_counter() - started)

    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(limits=limits, timeout=600) as client:
        started = time.perf_counter()
        await asyncio.gather(*(ask(client, number) for number in range(clients)))
        load.requests.append(clients * each / (time.perf_counter() - started))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.contender:
        contend(arguments.contender)
        return
    processes, urls = [], {}
    loads: dict[tuple[int, str], Load] = {}
    try:
        for name in CONTENDERS:
            command = [sys.executable, __file__, "--contender", name]
            command += ["--threads", str(arguments.threads)]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            processes.append(process)
            assert process.stdout is not None
            urls[name] = process.stdout.readline().strip()
            asyncio.run(measure(urls[name], 1, 1, 4, Load()))  # warm
        for _ in range(arguments.rounds):
            for clients in arguments.clients:
                each = max(1, 8 // clients)
                for name, url in urls.items():
                    load = loads.setdefault((clients, name), Load())
                    asyncio.run(measure(url, clients, each, arguments.tokens, load))
    finally:
        for process in processes:
            process.kill()
            process.wait()
    print(machine(["torch", "transformers", "starlette", "uvicorn"]))
    print(f"{arguments.threads} threads; prompts of {PROMPT}, texts of {arguments.tokens} tokens\n")
    print(markdown(HEADER, rows(loads, arguments.tokens), text=2))


HEADER = [
    "clients", "server", "requests/s", "tokens/s", "ratio",
    "first token, median s", "95 %", "whole text, median s", "95 %",
]  # fmt: skip


def rows(loads: dict[tuple[int, str], Load], tokens: int) -> list[list[str]]:
    """The table's rows; the ratio is of requests a second to transformers' in the same round."""
    result = []
    for (clients, name), load in loads.items():
        base = loads[clients, "transformers"].requests
        rate = statistics.median(load.requests)
        ratio = statistics.median(a / b for a, b in zip(load.requests, base, strict=True))
        seconds = [
            f"{value:.3f}"
            for times in (load.first, load.total)
            for value in (statistics.median(times), percentile(times, 0.95))
        ]
        shown = [f"{rate:.2f}", f"{rate * tokens:.0f}", f"{ratio:.2f}"]
        result.append([str(clients), name, *shown, *seconds])
    return result


def percentile(values: list[float], share: float) -> float:
    """The smallest value that a share of all does not exceed."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]


if __name__ == "__main__":
    main()
