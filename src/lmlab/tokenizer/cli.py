"""`lmlab tokenizer train | encode | decode | inspect | compare`."""

import argparse
import importlib
from pathlib import Path


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `tokenizer` and its subcommands to the `lmlab` command."""
    group = commands.add_parser(
        "tokenizer",
        help="train, use and compare tokenizers",
        description="Train, use and compare byte-level BPE tokenizers.",
    ).add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, text: str, example: str) -> argparse.ArgumentParser:
        def run(options: argparse.Namespace) -> None:
            # numpy and the native core are imported when there is work for them, not for --help
            getattr(importlib.import_module("lmlab.tokenizer.commands"), name)(options)

        parser = group.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            epilog=f"example:\n  lmlab tokenizer {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.set_defaults(run=run)
        return parser

    train = add(
        "train",
        "train a tokenizer on text files and save it as a folder",
        "train *.txt --vocab-size 10000 --special '<|endoftext|>' --out my_tokenizer",
    )
    _add_inputs(train)
    train.add_argument(
        "--vocab-size",
        type=int,
        required=True,
        metavar="N",
        help="256 bytes, merges and special tokens together",
    )
    train.add_argument(
        "--special",
        action="append",
        default=[],
        metavar="TOKEN",
        help="a string that stays whole and that nothing merges across; may be given many times",
    )
    train.add_argument(
        "--pattern",
        default="gpt2",
        help="how words are cut: gpt2, cl100k, o200k or a regular expression (default: gpt2)",
    )
    train.add_argument("--out", type=Path, required=True, metavar="DIR", help="the new folder")

    encode = add(
        "encode",
        "encode text files to one file of ids (uint16; uint32 above 65,536 tokens)",
        "encode my_tokenizer book.txt more.txt.gz --out ids.bin",
    )
    _add_tokenizer(encode)
    _add_inputs(encode)
    encode.add_argument(
        "--special",
        choices=("parse", "text", "error"),
        help="special tokens in the text stay whole, are ordinary text, or are an error "
        "(default: parse; in JSON lines and Parquet always text)",
    )
    encode.add_argument("--out", type=Path, required=True, metavar="FILE.bin", help="the ids")

    decode = add(
        "decode",
        "decode a file of ids back to text",
        "decode my_tokenizer ids.bin --out text.txt",
    )
    _add_tokenizer(decode)
    decode.add_argument("ids", type=Path, metavar="FILE.bin", help="what `encode` wrote")
    decode.add_argument(
        "--out", type=Path, metavar="FILE", help="the text (default: standard output)"
    )

    inspect = add(
        "inspect",
        "show a tokenizer's sizes, special tokens and longest tokens",
        "inspect my_tokenizer --longest 30",
    )
    _add_tokenizer(inspect)
    inspect.add_argument(
        "--longest", type=int, default=10, metavar="N", help="how many tokens to show (default: 10)"
    )

    compare = add(
        "compare",
        "show the bytes per token of each tokenizer on each text",
        "compare english_10k python_10k --on novel.txt program.py",
    )
    compare.add_argument(
        "tokenizers", nargs="+", type=Path, metavar="DIR", help="folders, or tokenizer.json files"
    )
    compare.add_argument(
        "--on", nargs="+", type=Path, required=True, metavar="FILE", help="the texts"
    )
    _add_reading(compare)


def _add_tokenizer(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "tokenizer", type=Path, metavar="DIR", help="a tokenizer's folder, or a tokenizer.json"
    )


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "inputs",
        nargs="+",
        type=Path,
        metavar="INPUT",
        help="text, JSON lines (both also .gz, .zst) or Parquet",
    )
    _add_reading(parser)


def _add_reading(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--errors",
        choices=("strict", "replace"),
        default="strict",
        help="invalid UTF-8 is an error, or reads as U+FFFD (default: strict)",
    )
    parser.add_argument(
        "--field",
        default="text",
        help="of JSON lines, or column of Parquet files, that holds the documents (default: text)",
    )
    parser.add_argument(
        "--raw", action="store_true", help="read JSON files as plain text, not as documents"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="threads (default: every core)")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
