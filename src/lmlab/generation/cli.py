"""`lmlab generate`: text from a trained run."""

import argparse
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lmlab.errors import UserError
from lmlab.generation import settings

if TYPE_CHECKING:
    from lmlab.loading import TrainedRun

EXAMPLES = """\
examples:
  lmlab generate runs/demo/2026-01-31_12-00-00 --prompt 'def read_file(path):'
  lmlab generate RUN                                 interactive, in a terminal
  lmlab generate RUN --prompt-file *.txt --json      one JSON object a line
  echo 'Once upon a time' | lmlab generate RUN --temperature 0.7 --stream

Text goes to standard output, all else to standard error. The text ends at <|endoftext|>, which
is a special token in prompts as well.
"""


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `generate` to the `lmlab` command."""
    parser = commands.add_parser(
        "generate",
        help="generate text with a trained run",
        description="Continue prompts with a trained run. Without a prompt it reads standard "
        "input, or is interactive in a terminal.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "run_path", type=Path, metavar="RUN", help="a run directory, or one of its checkpoints"
    )
    prompts = parser.add_argument_group("prompts")
    prompts.add_argument(
        "--prompt",
        action="append",
        metavar="TEXT",
        help="a text to continue; may be given many times; --prompt=TEXT for one that begins "
        "with a dash; '' begins a document",
    )
    prompts.add_argument(
        "--prompt-file",
        nargs="+",
        action="extend",
        type=Path,
        metavar="FILE",
        help="files with one prompt each, without the final newline; of .jsonl files the field "
        "'prompt' of each line; also .gz and .zst",
    )
    settings.add_flags(parser.add_argument_group("sampling"))
    output = parser.add_argument_group("output")
    output.add_argument(
        "--samples", type=int, default=1, metavar="N", help="texts for each prompt (default: 1)"
    )
    output.add_argument("--stream", action="store_true", help="print a text as it comes")
    output.add_argument(
        "--json",
        action="store_true",
        help="print a JSON object a line: prompt, text, finish_reason, tokens (ids), seed, cropped",
    )
    computing = parser.add_argument_group("computing")
    computing.add_argument(
        "--dtype",
        choices=("fp32", "bf16", "int8"),
        default="fp32",
        help="weights; the loss that bf16 and int8 cost is measured (default: fp32)",
    )
    computing.add_argument(
        "--batch-size", type=int, default=8, metavar="N", help="texts at a time (default: 8)"
    )
    computing.add_argument(
        "--device", default="cpu", help="cpu, cuda, cuda:N, mps or auto (default: cpu)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Print continuations, or start the interactive mode."""
    sampling = settings.from_flags(options)
    for flag, value in (("--samples", options.samples), ("--batch-size", options.batch_size)):
        if value < 1:
            raise UserError(f"{flag} must be at least 1, got {value}")
    if options.stream and options.json:
        raise UserError("--stream and --json exclude each other; give one of them")
    if sys.stdout is None:
        raise UserError("standard output is closed; redirect it to a file, or to /dev/null")
    prompts = _prompts(options)
    count = len(prompts or [""]) * options.samples
    if options.stream and count > 1:
        raise UserError(f"--stream shows one text, not {count}; leave it out")

    from lmlab.data.held_out import held_out_tokens
    from lmlab.generation.engine import Engine
    from lmlab.generation.interactive import Session
    from lmlab.generation.output import note, note_prompts, print_batch, print_stream, submit
    from lmlab.generation.rounding import describe_cost
    from lmlab.loading import load
    from lmlab.runs.run import DATA

    trained = load(options.run_path, options.device)
    model, tokenizer = trained.model, trained.tokenizer
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that is not UTF-8

    def note_cost() -> None:
        if options.dtype != "fp32":
            tokens = held_out_tokens(trained.config.data, trained.directory / DATA)
            note(describe_cost(model, engine.model, options.dtype, tokenizer, tokens))

    with _memory_errors():
        engine = Engine(
            model, tokenizer, max_batch=min(options.batch_size, count), dtype=options.dtype
        )
        if prompts is None:
            note_cost()
            Session(engine, sampling).run(_banner(options, trained))
            return
        requests = submit(engine, prompts, sampling, options.samples)
        note_prompts(requests, model.context_length)
        if options.stream:
            print_stream(engine, requests[0])
        else:
            print_batch(engine, requests, options.json)
        note_cost()


def _prompts(options: argparse.Namespace) -> list[str] | None:
    """Return the prompts; None for the interactive mode."""
    from lmlab.generation.prompts import read_prompt_files, read_standard_input, require_text

    if options.prompt is not None and options.prompt_file is not None:
        raise UserError("--prompt and --prompt-file exclude each other; give one of them")
    if options.prompt is not None:
        for prompt in options.prompt:
            require_text(prompt, "--prompt")
        return list(options.prompt)
    if options.prompt_file is not None:
        return read_prompt_files(options.prompt_file)
    if sys.stdin is None or not sys.stdin.isatty():
        return [read_standard_input()]
    if options.json or options.samples > 1 or not sys.stdout.isatty():
        raise UserError(
            "there is no prompt; give --prompt, --prompt-file or standard input (the interactive "
            "mode needs a terminal, and neither --json nor --samples)"
        )
    return None


def _banner(options: argparse.Namespace, trained: "TrainedRun") -> str:
    parameters = sum(p.numel() for p in trained.model.parameters())
    return (
        f"{options.run_path}: step {trained.step:,}, {parameters:,} parameters, {options.dtype}, "
        f"context of {trained.model.context_length:,} tokens"
    )


@contextmanager
def _memory_errors() -> Iterator[None]:
    """Turn an allocation that fails into a UserError."""
    import torch

    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
        known = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not known and "can't allocate memory" not in str(error):
            raise
        raise UserError("not enough memory; lower --batch-size") from error
