"""`lmlab serve` and `lmlab play`: trained runs over HTTP, and in the browser."""

import argparse
import os
import sys
from importlib.util import find_spec
from pathlib import Path

from lmlab.errors import UserError

SERVE_EXAMPLES = """\
examples:
  lmlab serve runs/demo/2026-01-31_12-00-00
  lmlab serve runs/a/2026-01-31_12-00-00 runs/b/2026-01-31_12-30-00 --port 9000 --dtype bf16
  lmlab serve RUN --host 0.0.0.0 --api-key secret --allow-origin http://gpu7.example.org:8000
  curl http://127.0.0.1:8000/v1/completions -d '{"prompt": "Once upon", "max_tokens": 50}'
"""
PLAY_EXAMPLES = """\
examples:
  lmlab play runs/demo/2026-01-31_12-00-00
  lmlab play RUN/checkpoints/step_00000100.pt RUN      two checkpoints side by side
"""
KEY = "LMLAB_API_KEY"
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `serve` and `play` to the `lmlab` command."""
    serve = commands.add_parser(
        "serve",
        help="serve trained runs through an OpenAI-compatible interface",
        description="Serve trained runs through an OpenAI-compatible interface: /v1/completions, "
        "/v1/chat/completions, /v1/models, and a page under /. Ctrl-C stops the server after the "
        "running requests.",
        epilog=SERVE_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    play = commands.add_parser(
        "play",
        help="sample trained runs in the browser",
        description="Open a page that samples trained runs: text as it is generated, the "
        "alternatives of each token, and two runs side by side. The interface of `lmlab serve` is "
        "there as well.",
        epilog=PLAY_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for parser in (serve, play):
        parser.add_argument(
            "runs", nargs="+", type=Path, metavar="RUN", help="a run directory or a checkpoint"
        )
        parser.add_argument("--host", default="127.0.0.1", help="default: this machine only")
        parser.add_argument("--port", type=_port, default=8000, help="default: 8000; 0: a free one")
        parser.add_argument(
            "--dtype",
            choices=("fp32", "bf16", "int8"),
            default="fp32",
            help="of the weights (default: fp32)",
        )
        parser.add_argument(
            "--device", default="auto", help="cpu, cuda, cuda:N, mps or auto (default)"
        )
        parser.add_argument(
            "--max-batch",
            type=_positive,
            default=16,
            metavar="N",
            help="sequences that a model generates at a time (default: 16)",
        )
    serve.add_argument(
        "--max-queue",
        type=_positive,
        default=64,
        metavar="N",
        help="sequences that wait for a model; beyond them the answer is 429 (default: 64)",
    )
    serve.add_argument(
        "--max-body",
        type=_positive,
        default=1_000_000,
        metavar="BYTES",
        help="largest body of a request (default: 1,000,000)",
    )
    serve.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        metavar="URL",
        help="accept requests from pages of this origin, and its name as the server's; repeatable",
    )
    serve.add_argument(
        "--chat-template",
        type=Path,
        metavar="FILE",
        help="Jinja template of conversations (default: the run's own, else lines `User: ...` and "
        "`Assistant: ...`)",
    )
    serve.add_argument(
        "--api-key", metavar="KEY", help=f"key that clients must send (default: ${KEY}, or none)"
    )
    play.add_argument("--no-browser", action="store_true", help="only print the address")
    play.set_defaults(max_queue=64, max_body=1_000_000, allow_origin=[], chat_template=None)
    play.set_defaults(api_key=None, run=run)
    serve.set_defaults(no_browser=True, run=run)


def run(options: argparse.Namespace) -> None:
    """Load the runs and serve them until a signal."""
    if not (find_spec("starlette") and find_spec("uvicorn")):
        raise UserError("serving needs starlette and uvicorn: pip install 'lmlab[serve]'")
    from lmlab.serving.guard import Access, Limits
    from lmlab.serving.models import load_models
    from lmlab.serving.server import Server, listen, serve, url_of

    key = options.api_key or os.environ.get(KEY) or None
    access = Access.of(options.host, options.allow_origin, key)
    with listen(options.host, options.port) as listening:
        url = url_of(listening)
        models = load_models(
            options.runs,
            device=options.device,
            dtype=options.dtype,
            max_batch=options.max_batch,
            max_queue=options.max_queue,
            template=options.chat_template,
        )
        for model in models:
            print(
                f"{model.name}: step {model.run.step:,}, {model.parameters:,} parameters, "
                f"context {model.context_length:,}, {model.dtype}"
            )
        if options.host not in LOOPBACK and key is None:
            print(
                f"lmlab: warning: others can reach this server at {options.host} without a key; "
                f"--api-key or ${KEY} sets one",
                file=sys.stderr,
            )

        def started() -> None:
            print(f"page           {url}/\ninterface      {url}/v1\nCtrl-C stops", flush=True)
            if not options.no_browser:
                import threading
                import webbrowser

                threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()

        limits = Limits(max_body=options.max_body)
        serve(Server(models, access=access, limits=limits, started=started), listening)


def _positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be an integer of at least 1, got {text}")
    return value


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"must be an integer from 0 to 65535, got {text}")
    return int(text)
