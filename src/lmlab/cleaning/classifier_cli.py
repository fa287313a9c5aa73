"""`lmlab cleaning train-classifier`."""

import argparse
from pathlib import Path
from typing import Any

from lmlab.arguments import number

EXAMPLES = """\
examples:
  lmlab cleaning train-classifier wiki=wiki.jsonl.zst cc=crawl.jsonl.zst --out quality.bin
  lmlab cleaning train-classifier toxic.jsonl --out toxic.bin --epochs 10
then:
  python clean.py ... +cleaning.steps.quality='{kind: classifier, name: quality, \\
    path: quality.bin, label: wiki, min_score: 0.5, max_score: null}'
"""


def register_train_classifier(tools: Any) -> None:
    """Add `train-classifier` to the tools."""
    parser = tools.add_parser(
        "train-classifier",
        help="train a fastText classifier on labelled texts",
        description="Train a fastText classifier on labelled texts. Its accuracy on held-out texts "
        "is printed, and written beside the model with a calibration plot.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="a file of `__label__NAME text` lines, of JSON lines with text and label, or "
        "LABEL=FILE: a file whose lines all have one label; also .gz and .zst",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.bin", help="the model")
    parser.add_argument(
        "--held-out",
        type=_share,
        default=0.1,
        metavar="SHARE",
        help="of each label's texts, for the evaluation (default: 0.1)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the split (default: 0)")
    parser.add_argument("--epochs", type=number(int), default=5, help="default: 5")
    parser.add_argument(
        "--lr", type=number(float), default=0.5, help="learning rate (default: 0.5)"
    )
    parser.add_argument("--dim", type=number(int), default=100, help="of vectors (default: 100)")
    parser.add_argument(
        "--word-ngrams", type=number(int), default=2, metavar="N", help="longest (default: 2)"
    )
    parser.add_argument(
        "--min-count", type=number(int), default=1, metavar="N", help="of words (default: 1)"
    )
    parser.set_defaults(run=_run)


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def _run(options: argparse.Namespace) -> None:
    # what is heavy is imported when there is work for it, not for --help
    from lmlab.cleaning.classifier_training import (
        TrainingOptions,
        evaluate_classifier,
        train_classifier,
        write_calibration,
    )
    from lmlab.cleaning.labelled import read_examples, split_examples

    examples = read_examples(options.sources)
    training, held_out = split_examples(examples, options.held_out, options.seed)
    settings = TrainingOptions(
        options.epochs, options.lr, options.dim, options.word_ngrams, options.min_count
    )
    train_classifier(training, options.out, settings)
    found = evaluate_classifier(options.out, held_out)
    write_calibration(found, options.out)
    print(f"{options.out}: trained on {len(training):,} texts")
    print(
        f"{found.examples:,} held-out texts: accuracy {found.accuracy:.1%} "
        f"(the most frequent label: {found.majority:.1%}), "
        f"expected calibration error {found.expected_calibration_error:.3f}"
    )
    for label, recall in found.recall.items():
        print(f"  {label}: precision {found.precision.get(label, 0):.1%}, recall {recall:.1%}")
    print(f"calibration: {options.out}.png, {options.out}.json")
