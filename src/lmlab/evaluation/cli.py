"""`lmlab evaluate`: runs on any text, on multiple choice and on tasks of lm_eval."""

import argparse
from collections.abc import Callable
from pathlib import Path

from lmlab.arguments import number, png_file

DESCRIPTION = """\
Measure runs on the same text: loss, perplexity and bits per byte, with 95 % confidence intervals
over documents. Bits per byte compares models with different tokenizers. Without --data the text is
what the runs held out. With --multiple-choice: accuracy. With --tasks: tasks of lm_eval. With
--problems: accuracy of generated answers, as a reward judges them.
"""
EXAMPLES = """\
examples:
  lmlab evaluate runs/demo/2026-01-31_12-00-00
  lmlab evaluate runs/a/* runs/b/* --data book.txt --separator '\\n\\n' --plot bits.png
  lmlab evaluate runs/a/* --data news/ --data code/**/*.py --output table.csv
  lmlab evaluate runs/a/* --multiple-choice questions.jsonl
  lmlab evaluate runs/a/* --tasks my_task.yaml --num-fewshot 2
  lmlab evaluate runs/a/* --problems sums.jsonl --reward arithmetic --samples 8 --pass-at 1,4

A line of questions.jsonl:
  {"question": "The capital of France is", "choices": ["Rome", "Paris"], "answer": 1}
"""


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `evaluate` to the `lmlab` command."""
    parser = commands.add_parser(
        "evaluate",
        help="measure runs on any text, on multiple choice, or on tasks of lm_eval",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="run directories, or checkpoints in them"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--data",
        nargs="+",
        action="append",
        metavar="PATH",
        help="files, folders or patterns of one corpus, as for data=text; may be given many times",
    )
    what.add_argument(
        "--multiple-choice",
        nargs="+",
        type=Path,
        metavar="FILE.jsonl",
        help="questions, one JSON object a line",
    )
    what.add_argument(
        "--tasks",
        nargs="+",
        metavar="TASK",
        help="names of lm_eval, or YAML files (pip install 'lmlab[eval]')",
    )
    what.add_argument(
        "--problems",
        nargs="+",
        type=Path,
        metavar="FILE.jsonl",
        help="prompts with answers, one JSON object a line; answers are generated",
    )
    _add_text(parser)
    _add_problems(parser)
    tasks = parser.add_argument_group("with --tasks")
    tasks.add_argument(
        "--include-path", type=Path, metavar="DIR", help="a folder of YAML files with tasks"
    )
    tasks.add_argument(
        "--num-fewshot", type=int, metavar="N", help="solved examples before each question"
    )
    model = parser.add_argument_group("how it is computed")
    model.add_argument(
        "--dtype",
        choices=("fp32", "bf16", "int8"),
        default="fp32",
        help="weights (default: fp32); bf16 on a GPU is autocast, as in training",
    )
    model.add_argument("--device", default="auto", help="cpu, cuda, mps or auto (default: auto)")
    model.add_argument(
        "--batch-size",
        type=_at_least(1),
        default=8,
        metavar="N",
        help="sequences of the context length in a batch (default: 8)",
    )
    model.add_argument(
        "--limit",
        type=_at_least(1),
        metavar="N",
        help="read only the first N documents, questions or examples",
    )
    _add_output(parser)
    parser.set_defaults(run=_run)


def _add_text(parser: argparse.ArgumentParser) -> None:
    text = parser.add_argument_group("with --data")
    text.add_argument(
        "--stride",
        type=int,
        metavar="N",
        help="tokens that each window counts after the first one; smaller is slower and gives more "
        "context (default: half of the context length)",
    )
    text.add_argument(
        "--context-length",
        type=int,
        metavar="N",
        help="tokens of a window (default: the context length of each model)",
    )
    text.add_argument(
        "--separator",
        metavar="TEXT",
        help=r"what stands between two documents of a plain text file, such as '\n\n' (default: "
        "each file is one document)",
    )
    text.add_argument(
        "--jsonl-field",
        metavar="NAME",
        help="the field of JSON lines that holds the document (default: text)",
    )
    text.add_argument(
        "--data-format",
        choices=("text", "jsonl"),
        help="how files are read (default: by name and content)",
    )


def _add_problems(parser: argparse.ArgumentParser) -> None:
    problems = parser.add_argument_group("with --problems")
    problems.add_argument(
        "--reward", metavar="NAME", help="what judges an answer: arithmetic, gsm8k, module.function"
    )
    problems.add_argument(
        "--reward-deadline",
        type=number(float),
        metavar="S",
        help="seconds after which a reward counts as failed, in a process of its own",
    )
    problems.add_argument(
        "--samples",
        type=_at_least(1),
        metavar="N",
        help="answers drawn for each problem beside the likeliest one (default: none)",
    )
    problems.add_argument(
        "--pass-at",
        type=_whole_numbers,
        metavar="K,K",
        help="estimate the probability that one of K samples is right (default: 1 and N)",
    )
    problems.add_argument(
        "--max-new-tokens",
        type=_at_least(1),
        metavar="N",
        help="longest answer (default: 256)",
    )
    problems.add_argument(
        "--stop", action="append", metavar="TEXT", help="ends an answer; may be given many times"
    )
    problems.add_argument(
        "--prompt-field", metavar="NAME", help="the field of a prompt (default: prompt)"
    )
    problems.add_argument(
        "--answer-field", metavar="NAME", help="the field of what is right (default: answer)"
    )
    problems.add_argument(
        "--prompt-template", metavar="TEXT", help="text around {prompt} (default: {prompt})"
    )
    problems.add_argument(
        "--preferences",
        type=Path,
        metavar="FILE.jsonl",
        help="write a right and a wrong sample of each problem that has both, as task=dpo reads",
    )


def _add_output(parser: argparse.ArgumentParser) -> None:
    output = parser.add_argument_group("output")
    output.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="write the table to a .md, .csv or .json file (default: standard output)",
    )
    output.add_argument(
        "--format",
        choices=("markdown", "csv", "json"),
        help="of the table (default: by the name of the file, or markdown)",
    )
    output.add_argument(
        "--plot",
        type=png_file,
        metavar="FILE.png",
        help="draw the values with their intervals as well",
    )
    output.add_argument("--quiet", action="store_true", help="no progress bars")


def _run(options: argparse.Namespace) -> None:
    # torch is imported when there is work for it, not for --help
    from lmlab.evaluation.commands import evaluate

    evaluate(options)


def _whole_numbers(text: str) -> list[int]:
    return [_at_least(1)(part) for part in text.split(",")]


def _at_least(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, got {text}")
        return value

    parse.__name__ = "number"
    return parse
