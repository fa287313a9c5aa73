"""`lmlab account` counts what a configured model costs; `lmlab mx` what MX blocks change in it."""

import argparse
import json
import re
from pathlib import Path
from typing import Any

from lmlab.accounting.vocabulary import GPT2_VOCABULARY, declared_vocab_size
from lmlab.arguments import number
from lmlab.errors import UserError

EXAMPLES = """\
examples:
  lmlab account model=xl
  lmlab account model=small model/attention=sliding_window model.attention.num_kv_heads=4
  lmlab account model=xl optimizer=adamw trainer.batch_size=1024 --peak 19.5e12 --mfu 0.5
"""


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `account` to the `lmlab` command."""
    parser = commands.add_parser(
        "account",
        help="count a model's parameters, FLOPs, memory and training time",
        description="Count a model's parameters, FLOPs, memory and training time; nothing is run.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="what one would give to train.py"
    )
    parser.add_argument(
        "--vocab-size",
        type=number(int),
        metavar="N",
        help="rows of the embedding (default: model.vocab_size, or the given tokenizer's, or "
        f"{GPT2_VOCABULARY:,}, GPT-2's, without one)",
    )
    for name, default, what in (
        ("memory", 80e9, "bytes of the device"),
        ("peak", 19.5e12, "FLOP/s of the device"),
        ("mfu", 0.5, "share of the peak that training reaches"),
    ):
        parser.add_argument(
            f"--{name}",
            type=number(float),
            default=default,
            metavar="X",
            help=f"{what} (default: {default:g})",
        )
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    parser.set_defaults(run=run)
    rounded = commands.add_parser(
        "mx",
        help="what rounding a run's weights to MX blocks changes",
        description="Print the error of each weight matrix of a run when rounded to MX blocks.",
    )
    rounded.add_argument("path", metavar="RUN", help="a run directory or one of its checkpoints")
    rounded.add_argument(
        "--element", choices=("e4m3", "e5m2"), default="e4m3", help="(default: e4m3)"
    )
    rounded.add_argument(
        "--rounding", choices=("floor", "rceil"), default="rceil", help="(default: rceil)"
    )
    rounded.set_defaults(run=run_mx)


def run_mx(options: argparse.Namespace) -> None:
    """Print a table of what MX blocks change in the weight matrices of a run."""
    from lmlab.kernels.mx import quantization_report
    from lmlab.layout import checkpoint_of
    from lmlab.training.checkpoint import read_checkpoint

    checkpoint = checkpoint_of(Path(options.path).expanduser())
    weights = read_checkpoint(checkpoint, optimizer=False)["model"]
    matrices = {name: weight for name, weight in weights.items() if weight.ndim >= 2}
    print(quantization_report(matrices, options.element, options.rounding))


def run(options: argparse.Namespace) -> None:
    """Print the account of the model that the overrides compose."""
    from lmlab.hydra_app import compose

    if not 0 < options.mfu <= 1:
        raise UserError(f"--mfu is a share of the peak, between 0 and 1, got {options.mfu:g}")
    config = compose(*options.overrides)
    named = [o for o in options.overrides if re.match(r"\+*(tokenizer|experiment|resume)\b", o)]
    rows = config.model.vocab_size
    if options.vocab_size and rows:
        raise UserError(
            f"--vocab-size {options.vocab_size} and model.vocab_size={rows} both say how many rows "
            "the embedding has; give one of them"
        )
    vocab_size = options.vocab_size or (
        declared_vocab_size(config.tokenizer) if named else rows or GPT2_VOCABULARY
    )

    from lmlab.accounting.costs import count_costs
    from lmlab.accounting.text import full
    from lmlab.training.budget import total_steps

    precision = config.trainer.precision.replace("auto", "fp32")  # which device it will be is open
    checkpointed = config.trainer.checkpoint_activations
    counted = count_costs(config.model, config.optimizer, vocab_size, precision, checkpointed)
    per_step = config.tokens_per_step()
    steps = total_steps(config.budget, per_step, counted.parameters, counted.flops_per_token)
    tokens = None if per_step is None else steps * per_step
    if options.json:
        values: dict[str, Any] = counted.to_dict() | {
            "largest_batch": counted.largest_batch(options.memory),
            "tokens": tokens,
            "training_seconds": None
            if tokens is None
            else counted.training_seconds(tokens, options.peak, options.mfu),
        }
        print(json.dumps({k: v for k, v in values.items() if k != "tree"}, indent=2))
    else:
        kind = config.optimizer.kind
        exact = config.task.kind == "pretrain"
        device = (options.memory, options.peak, options.mfu)
        print(full(counted, kind, tokens, *device, exact=exact))
