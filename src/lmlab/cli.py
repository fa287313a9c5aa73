"""The `lmlab` command: each package adds its own subcommands."""

import argparse
import sys
from typing import NoReturn

import lmlab.accounting.cli
import lmlab.cluster.cli
import lmlab.evaluation.cli
import lmlab.export.cli
import lmlab.generation.cli
import lmlab.gpu.cli
import lmlab.kernels.cli
import lmlab.planning.cli
import lmlab.profiling.cli
import lmlab.runs.cli
import lmlab.scaling.cli
import lmlab.serving.cli
import lmlab.tokenizer.cli
import lmlab.training.cli
from lmlab.command import exit_code
from lmlab.errors import UserError


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are UserErrors: one line, exit code 1."""

    def error(self, message: str) -> NoReturn:
        """Refuse the command line."""
        raise UserError(f"{message} (see `{self.prog} --help`)")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line with all subcommands."""
    parser: argparse.ArgumentParser = Parser(
        prog="lmlab", description="A laboratory for training language models."
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    # Hydra parses what follows it
    commands.add_parser("train", help="train a language model, as `python train.py`")
    lmlab.tokenizer.cli.register(commands)
    lmlab.generation.cli.register(commands)
    lmlab.serving.cli.register(commands)
    lmlab.evaluation.cli.register(commands)
    lmlab.export.cli.register(commands)
    lmlab.runs.cli.register(commands)
    lmlab.training.cli.register(commands)
    lmlab.scaling.cli.register(commands)
    lmlab.cluster.cli.register(commands)
    lmlab.accounting.cli.register(commands)
    lmlab.planning.cli.register(commands)
    lmlab.profiling.cli.register(commands)
    lmlab.gpu.cli.register(commands)
    lmlab.kernels.cli.register(commands)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 1 after a UserError, 130 after Ctrl-C."""
    given = sys.argv[1:] if arguments is None else arguments

    def run() -> None:
        if given[:1] == ["train"]:
            from lmlab.hydra_app import main as train
            from lmlab.locations import find_conf

            train(find_conf(), given[1:])  # which exits
        options = build_parser().parse_args(given)
        options.run(options)

    return exit_code(run, prefix="lmlab: ")


if __name__ == "__main__":
    sys.exit(main())
