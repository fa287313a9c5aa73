"""`lmlab scaling plan` and `serve`."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmlab.errors import UserError
from lmlab.scaling.arguments import count, training_flops

if TYPE_CHECKING:
    from lmlab.scaling.journal import Journal
    from lmlab.scaling.trial import Space

Subcommands = Any
KEY = "LMLAB_SCALING_KEY"
"""Environment variable of the API's key."""
PORT = 8080


def register_plan(tools: Subcommands) -> None:
    """Add `plan` to `lmlab scaling`."""
    plan = tools.add_parser(
        "plan",
        help="choose and make runs under a FLOP budget, and predict a larger one",
        description="Choose runs round after round under a FLOP budget, make them, and predict the "
        "best loss at a target. With --server the runs are those of a training API; without, real "
        "runs that `lmlab train -m` starts, with the given overrides and launcher. The same "
        "command continues a plan that was interrupted; no run is paid twice.",
    )
    plan.add_argument(
        "--budget", type=training_flops, required=True, metavar="FLOPS", help="of all runs"
    )
    plan.add_argument(
        "--target", type=training_flops, required=True, metavar="FLOPS", help="to predict"
    )
    plan.add_argument("--server", metavar="URL", help="of a training API")
    plan.add_argument("--api-key", metavar="KEY", help=f"of the server (default: ${KEY})")
    plan.add_argument(
        "--folder",
        type=Path,
        default=Path("runs/plans/plan"),
        metavar="DIR",
        help="of the plan's journal (default: runs/plans/plan)",
    )
    plan.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="of real runs, as for train.py"
    )
    plan.set_defaults(run=run_plan)


def register_serve(tools: Subcommands) -> None:
    """Add `serve` to `lmlab scaling`."""
    serve = tools.add_parser(
        "serve",
        help="serve the course's training API from a surrogate of training",
        description="Answer GET /loss, /total_flops_used and /previous_runs as the training API of "
        "Stanford CS336, assignment 3: a surrogate of training with noise and 2e18 FLOPs to spend. "
        "Ctrl-C stops it.",
    )
    serve.add_argument("--api-key", metavar="KEY", help=f"that clients send (default: ${KEY})")
    serve.add_argument("--host", default="127.0.0.1", help="default: this machine only")
    serve.add_argument(
        "--port", type=count(0), default=PORT, help=f"default: {PORT}; 0: a free one"
    )
    serve.add_argument(
        "--surface", type=count(0), default=0, metavar="SEED", help="of the surrogate (default: 0)"
    )
    serve.add_argument(
        "--state",
        type=Path,
        default=Path("runs/scaling_api.json"),
        metavar="FILE",
        help="runs that were made, kept between starts (default: runs/scaling_api.json)",
    )
    serve.add_argument(
        "--reveal", type=training_flops, metavar="FLOPS", help="print the true best loss, and exit"
    )
    serve.set_defaults(run=run_serve)


def run_plan(options: argparse.Namespace) -> None:
    """Carry out a plan and print its prediction."""
    from lmlab.scaling.client import ApiClient
    from lmlab.scaling.plan import plan_with_api, plan_with_sweeps
    from lmlab.scaling.trial import COURSE

    def say(line: str) -> None:
        print(line, flush=True)

    if options.server is not None:
        if options.overrides:
            raise UserError("--server makes no real runs; leave out " + " ".join(options.overrides))
        client = ApiClient(options.server, _key(options))
        journal = plan_with_api(client, options.folder, options.budget, options.target, say)
        _print(journal, COURSE, options)
        return
    from lmlab.hydra_app import compose
    from lmlab.scaling.sweeps import Sweeps, real_space

    # launchers are of Hydra, not of a run's configuration
    own = [override for override in options.overrides if not override.startswith("hydra")]
    config = compose(*own)
    if any(override.split("=")[0] == "name" for override in own):
        raise UserError("the plan names its runs after --folder; leave out name=")
    space = real_space(
        options.budget, config.lr, config.trainer.batch_size, config.model.context_length
    )
    sweeps = Sweeps(options.folder.name, options.overrides)
    journal = plan_with_sweeps(
        sweeps.launch, space, options.folder, options.budget, options.target, options.overrides, say
    )
    _print(journal, space, options)


def _print(journal: "Journal", space: "Space", options: argparse.Namespace) -> None:
    from lmlab.scaling.planner import predict

    p = predict(journal.trials, space, options.target)
    low, high = p.loss_interval.low, p.loss_interval.high
    sizes = p.parameters_interval
    print(
        f"{len(journal.losses)} runs, {journal.spent:.4g} of {options.budget:.4g} FLOPs: "
        f"{journal.path}\n"
        f"at {p.flops:.4g} FLOPs: loss {p.loss:.4f} ({low:.4f} to {high:.4f}), best size "
        f"{p.parameters:.4g} ({sizes.low:.3g} to {sizes.high:.3g}) parameters without embeddings\n"
        f"train d_model={p.shape.d_model} num_layers={p.shape.num_layers} "
        f"num_heads={p.shape.num_heads} batch_size={p.batch_size} "
        f"learning_rate={p.learning_rate:g} on {p.tokens:.4g} tokens"
    )


def _key(options: argparse.Namespace) -> str:
    key = options.api_key or os.environ.get(KEY)
    if not key:
        raise UserError(f"the training API needs a key: --api-key KEY, or ${KEY}")
    return str(key)


def run_serve(options: argparse.Namespace) -> None:
    """Serve the training API until a signal."""
    from lmlab.scaling.surface import Surface

    surface = Surface.draw(options.surface)
    if options.reveal:
        config, loss = surface.best(int(options.reveal))
        print(f"loss {loss:.4f}: {config}")
        return
    try:
        import uvicorn

        from lmlab.scaling.api import TrainingApi
    except ImportError as error:
        raise UserError(
            "serving needs starlette and uvicorn: pip install 'lmlab[serve]'"
        ) from error
    from lmlab.io.locks import held_alone
    from lmlab.serving.guard import Access, Guard, Limits
    from lmlab.serving.server import listen, url_of

    if options.port > 65535:
        raise UserError(f"--port must be at most 65535, got {options.port}")
    key, state = _key(options), options.state
    message = f"another server keeps its runs in {state}; stop it, or give another --state"
    lock = state.parent / f".{state.name}.lock"  # each of two would drop the runs of the other
    with held_alone(lock, message), listen(options.host, options.port) as listening:
        api = TrainingApi(surface, key, state)
        app = Guard(api.build_app(), Access.of(options.host), Limits())
        print(
            f"training API   {url_of(listening)}\nruns           {options.state}: {len(api.runs)}, "
            f"{api.spent:.3g} of {api.budget:.3g} FLOPs\nCtrl-C stops",
            flush=True,
        )
        settings = uvicorn.Config(app, lifespan="off", log_level="error", access_log=False)
        uvicorn.Server(settings).run(sockets=[listening])
