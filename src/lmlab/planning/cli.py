"""`lmlab plan`: memory and time of training on many devices, before they are asked for."""

import argparse
import json
import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from lmlab.accounting.vocabulary import GPT2_VOCABULARY, declared_vocab_size
from lmlab.arguments import number, png_file
from lmlab.errors import UserError
from lmlab.gpu.names import sheet_names

if TYPE_CHECKING:
    from lmlab.config import RunConfig
    from lmlab.gpu.sheets import Sheet
    from lmlab.planning.layouts import Request
    from lmlab.planning.links import Cluster
    from lmlab.planning.plan import Plan, Training

EXAMPLES = """\
examples:
  lmlab plan model=7b trainer.batch_size=512 --devices 64 --device H100
  lmlab plan model=70b trainer.batch_size=1024 --devices 1024 --plot plan.png
  lmlab plan model=xl trainer.batch_size=64 parallel=zero1 --devices 8 --device RTX_4090 --every
  lmlab plan model=small trainer.batch_size=32 --devices 16 --device mine.yaml --network 12.5e9
"""


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `plan` to the `lmlab` command."""
    parser = commands.add_parser(
        "plan",
        help="memory and time of training on many devices, by strategy; recommends one",
        description="Predict the memory of a device and the time of a step for each strategy and "
        "micro-batch, recommend one, and print the command that trains by it; nothing is run.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="what one would give to train.py; parallel and its keys, trainer.micro_batch_size "
        "and trainer.checkpoint_activations=true restrict the plans",
    )
    parser.add_argument(
        "--devices", type=number(int), required=True, metavar="N", help="on all nodes"
    )
    parser.add_argument(
        "--device",
        default="H100",
        metavar="NAME",
        help=f"{', '.join(sheet_names())}, or a sheet of your own: FILE.yaml (default: H100)",
    )
    parser.add_argument(
        "--devices-per-node", type=number(int), metavar="N", help="(default: the sheet's)"
    )
    for name, where in (("link", "inside a node"), ("network", "to other nodes")):
        parser.add_argument(
            f"--{name}",
            type=number(float),
            metavar="X",
            help=f"bytes a second that a device sends {where} (default: the sheet's)",
        )
    parser.add_argument(
        "--attainable",
        type=number(float),
        default=0.5,
        metavar="X",
        help="share of the peak that compute attains (default: 0.5)",
    )
    parser.add_argument(
        "--usable",
        type=number(float),
        default=0.9,
        metavar="X",
        help="share of a device's memory that a plan may take; CUDA, NCCL and fragments need the "
        "rest (default: 0.9)",
    )
    parser.add_argument("--every", action="store_true", help="print every micro-batch")
    parser.add_argument("--json", action="store_true", help="print every plan as JSON")
    parser.add_argument("--plot", type=png_file, metavar="FILE.png", help="draw it as well")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Print the plans; raises UserError when none fits or is possible."""
    from lmlab.gpu.sheets import load_sheet
    from lmlab.hydra_app import compose
    from lmlab.planning.links import cluster_of

    for name in ("attainable", "usable"):
        if getattr(options, name) > 1:
            raise UserError(f"--{name} is a share, up to 1, got {getattr(options, name):g}")
    sheet = load_sheet(options.device)
    config = compose(*options.overrides)
    cluster_for = partial(
        cluster_of,
        sheet,
        per_node=options.devices_per_node,
        link=options.link,
        network=options.network,
    )
    plan = _plan(cluster_for, options, config, sheet)
    if not any(row.memory for row in plan.rows):
        raise UserError(plan.rows[0].problem)

    from lmlab.planning import text
    from lmlab.planning.advice import advice

    best = plan.best
    if options.json:
        found = text.values(plan)
        if best is not None:
            found["command"] = text.command(plan, best, options.overrides, "slurm")
        print(json.dumps(found, indent=2))
    else:
        print("\n".join([*text.described(plan), "", *text.table(plan, options.every)]))
    if options.plot:
        from lmlab.planning.plot import plot_plan

        plot_plan(plan, " ".join(options.overrides) or "the default model", options.plot)
    if best is None:
        raise UserError(advice(plan, cluster_for))
    if not options.json:
        print(f"\n{best.layout}: {text.reason(plan, best)}")
        if plan.cluster.nodes == 1:
            print(text.command(plan, best, options.overrides, "local"))
        print(text.command(plan, best, options.overrides, "slurm"))


def _plan(
    cluster_for: "Callable[[int], Cluster]",
    options: argparse.Namespace,
    config: "RunConfig",
    sheet: "Sheet",
) -> "Plan":
    from lmlab.planning.layouts import layouts
    from lmlab.planning.plan import Planner

    cluster = cluster_for(options.devices)
    usable = options.usable * sheet.memory
    training = _training(config, sheet, options.overrides)
    planner = Planner(training, sheet, cluster, usable, options.attainable)
    return planner.plan(layouts(cluster, training.request))


def _training(config: "RunConfig", sheet: "Sheet", overrides: list[str]) -> "Training":
    from lmlab.planning.plan import Training

    named = _given(overrides, "tokenizer", "experiment", "resume")
    rows = declared_vocab_size(config.tokenizer) if named else GPT2_VOCABULARY
    chunk = config.next_token_objective().chunk_tokens
    return Training(
        model=config.model,
        optimizer=config.optimizer,
        vocab_size=config.model.vocab_size or rows,
        batch_size=config.trainer.batch_size,
        micro_batch_size=config.trainer.micro_batch_size,
        precision=_precision(config.trainer.precision, sheet),
        chunk_tokens=None if chunk == "auto" else chunk,
        checkpointed=config.trainer.checkpoint_activations,
        request=_request(config, sheet, overrides),
    )


def _request(config: "RunConfig", sheet: "Sheet", overrides: list[str]) -> "Request":
    """Return what is given of `parallel`: on the command line, or by other values than its file."""
    from lmlab.hydra_app import compose
    from lmlab.planning.layouts import Request

    precision = config.trainer.precision
    if precision == "auto":
        precision = _precision(precision, sheet)
    kind, values = config.parallel.kind, config.parallel.model_dump(exclude={"kind"})
    if not _given(overrides, "parallel") and kind == compose().parallel.kind:
        return Request(precision)
    usual = compose(f"parallel={kind}").parallel.model_dump()
    named = {key for each in overrides for key in re.findall(r"^\+*parallel\.(\w+)=", each)}
    given = {key: v for key, v in values.items() if key in named or v != usual[key]}
    return Request(precision, kind, given)


def _precision(name: str, sheet: "Sheet") -> Any:
    """Return the precision of matrix products on a GPU; mxfp8 is emulated in bf16."""
    if name in ("auto", "mxfp8"):
        return "bf16" if "bf16" in sheet.flops else "fp32"
    if name == "fp32":
        return "tf32" if "tf32" in sheet.flops else "fp32"
    return name


def _given(overrides: list[str], *groups: str) -> bool:
    return any(re.match(rf"\+*({'|'.join(groups)})\b", each) for each in overrides)
