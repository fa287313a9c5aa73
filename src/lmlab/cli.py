"""The `lmlab` command: each package adds its own subcommands."""

import sys

try:
    import argparse
    import re
    from typing import Any, NoReturn

    import lmlab.accounting.cli
    import lmlab.alignment.cli
    import lmlab.cleaning.cli
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
except KeyboardInterrupt:  # while modules are loaded
    sys.exit(130)

OVERRIDE = re.compile(r"[^-=][^=]*=")
NEGATIVE = re.compile(r"-(\.?\d|(inf(inity)?|nan)$)", re.IGNORECASE)
"""Arguments that are numbers; argparse before Python 3.14 takes -1e9 for an option."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are UserErrors: one line, exit code 1.

    Overrides of a command, KEY=VALUE, may stand before, between and after its options.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._negative_number_matcher = NEGATIVE

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Return the options, and what is unknown; argparse takes one group of overrides alone."""
        given = sys.argv[1:] if args is None else list(args)
        positional = [action.dest for action in self._actions if not action.option_strings]
        # Beside other positional arguments, a path with `=` may be one of them.
        first = self._overrides(given) if positional == ["overrides"] else set()
        others = [argument for place, argument in enumerate(given) if place not in first]
        found, rest = super().parse_known_args(others, namespace)
        if "overrides" in positional:
            more = [argument for argument in rest if OVERRIDE.match(argument)]
            found.overrides = [*found.overrides, *(given[place] for place in sorted(first)), *more]
            rest = [argument for argument in rest if argument not in more]
        if rest and self._subparsers is None:  # here the command that has no such option is known
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return found, rest

    def _overrides(self, given: list[str]) -> set[int]:
        """Return the places of the overrides, also behind an option of several values."""
        options = self._option_string_actions
        before = ["", *given]
        return {
            place
            for place, argument in enumerate(given)
            if OVERRIDE.match(argument)
            and (before[place] not in options or options[before[place]].nargs is not None)
        }

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
    commands.add_parser("clean", help="clean text for training, as `python clean.py`")
    lmlab.tokenizer.cli.register(commands)
    lmlab.cleaning.cli.register(commands)
    lmlab.alignment.cli.register(commands)
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
        if given[:1] == ["clean"]:
            from lmlab.clean_app import main as clean
            from lmlab.locations import find_conf

            clean(find_conf(), given[1:])  # which exits
        options = build_parser().parse_args(given)
        options.run(options)

    return exit_code(run, prefix="lmlab: ")


if __name__ == "__main__":
    sys.exit(main())
