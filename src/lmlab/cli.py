"""The `lmlab` command: each package adds its own subcommands."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import lmlab.account
import lmlab.cluster.cli
import lmlab.runs.cli
import lmlab.tokenizer.cli
from lmlab.errors import UserError, explain_os_error


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
    lmlab.tokenizer.cli.register(commands)
    lmlab.account.register(commands)
    lmlab.cluster.cli.register(commands)
    lmlab.runs.cli.register(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 1 after a UserError, 130 after Ctrl-C."""
    parser = build_parser()
    try:
        options = parser.parse_args(arguments)
        options.run(options)
        sys.stdout.flush()
    except UserError as error:
        print("lmlab:", *str(error).split("\n"), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `lmlab ... | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        text = explain_os_error(error)
        if text is None:
            raise
        print("lmlab:", text, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
