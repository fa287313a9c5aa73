"""`lmlab scaling coordinates`."""

import argparse
import json
from typing import TYPE_CHECKING, Any, get_args

from lmlab.arguments import png_file
from lmlab.errors import UserError
from lmlab.files import require_writable
from lmlab.scaling.arguments import count

if TYPE_CHECKING:
    from lmlab.model.config import Parametrization
    from lmlab.scaling.coordinates import Coordinates

Subcommands = Any
DEFAULTS = ("optimizer=adamw", "tokenizer=byte", "model.context_length=64", "model.num_layers=2")
"""Overrides that make the check one of seconds; those of the command line come after them."""

SET = {
    f"model.{key}"
    for key in ("d_model", "num_heads", "head_dim", "d_ff", "parametrization", "base_width")
}
"""Keys that differ between the models of the check."""


def register_coordinates(tools: Subcommands) -> None:
    """Add `coordinates` to `lmlab scaling`."""
    parser = tools.add_parser(
        "coordinates",
        help="check that activations change by the same amount at all widths (muP)",
        description="Train models of several widths for a few steps on one batch of random tokens, "
        "in the standard parametrization and in muP, and compare by how much their activations "
        "change. In muP the changes do not depend on the width: exponents are near 0 (coordinate "
        "check, Yang et al. 2022).",
    )
    parser.add_argument(
        "--widths",
        type=count(1),
        nargs="+",
        default=[64, 128, 256, 512],
        metavar="D_MODEL",
        help="the smallest is the base width of muP (default: 64 128 256 512)",
    )
    parser.add_argument("--steps", type=count(1), default=4, metavar="N", help="default: 4")
    parser.add_argument("--seeds", type=count(1), default=2, metavar="N", help="default: 2")
    parser.add_argument(
        "--head-dim", type=count(2), default=64, metavar="N", help="of all widths (default: 64)"
    )
    parser.add_argument("--plot", type=png_file, metavar="FILE.png", help="draw a picture as well")
    parser.add_argument("--json", action="store_true", help="print the changes as JSON")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help=f"of the model and the optimizer, as for train.py, after {' '.join(DEFAULTS)}",
    )
    parser.set_defaults(run=run_coordinates)


def run_coordinates(options: argparse.Namespace) -> None:
    """Print the changes and their exponents for both parametrizations."""
    widths = sorted(set(options.widths))
    if len(widths) < 2:
        raise UserError(f"--widths needs at least two different widths, got {widths[0]}")
    for width in widths:
        if width % options.head_dim:
            raise UserError(
                f"--widths {width} is not a multiple of --head-dim {options.head_dim}; heads keep "
                "their width"
            )
    for override in options.overrides:
        key = override.split("=")[0]
        if key in SET:
            raise UserError(f"the check sets {key}; leave it out, and use --widths and --head-dim")
    from lmlab.model.config import Parametrization

    if options.plot:
        require_writable(options.plot)
    checks = [_measure(kind, widths, options) for kind in get_args(Parametrization)]
    if options.plot:
        from lmlab.scaling.coordinates import draw_coordinates

        draw_coordinates(checks, options.plot)
    print(_values(checks) if options.json else _text(checks))
    if options.plot and not options.json:
        print(options.plot)


def _measure(
    parametrization: "Parametrization", widths: list[int], options: argparse.Namespace
) -> "Coordinates":
    from lmlab.accounting.vocabulary import declared_vocab_size
    from lmlab.hydra_app import compose
    from lmlab.scaling.coordinates import measure_coordinates

    base = widths[0] if parametrization == "mup" else "null"
    configs = [
        compose(
            *DEFAULTS,
            *options.overrides,
            f"model.d_model={width}",
            f"model.num_heads={width // options.head_dim}",
            "model.head_dim=null",
            "model.d_ff=null",
            f"model.parametrization={parametrization}",
            f"model.base_width={base}",
        )
        for width in widths
    ]
    return measure_coordinates(
        [(config.model, config.optimizer) for config in configs],
        configs[0].model.vocab_size or declared_vocab_size(configs[0].tokenizer),
        steps=options.steps,
        seeds=options.seeds,
    )


def _text(checks: list["Coordinates"]) -> str:
    from lmlab.text import markdown_table

    first = checks[0]
    steps = first.changes.shape[2]
    rows = [
        [check.parametrization, layer, *(f"{v:.3g}" for v in check.changes[:, i, -1]), f"{e:+.2f}"]
        for check in checks
        for i, (layer, e) in enumerate(zip(check.layers, check.exponents, strict=True))
    ]
    head = ("parametrization", "layer", *(f"{width}" for width in first.widths), "exponent")
    lines = [f"Root mean square change after {steps} steps, by d_model; change ~ d_model^exponent"]
    lines.append(markdown_table(head, rows, text=2, aligned=True))
    for check in checks:
        layer, exponent = check.steepest
        lines.append(f"{check.parametrization}: farthest from 0 is {exponent:+.2f} ({layer})")
    return "\n".join(lines)


def _values(checks: list["Coordinates"]) -> str:
    found = {
        check.parametrization: {
            "widths": check.widths,
            "layers": check.layers,
            "changes": check.changes.tolist(),
            "exponents": check.exponents.tolist(),
        }
        for check in checks
    }
    return json.dumps(found, indent=2)
