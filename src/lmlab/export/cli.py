"""`lmlab export` and `lmlab import`: models for other tools, and from them."""

import argparse
from pathlib import Path

from lmlab.errors import UserError

DTYPES = {"huggingface": ("fp32", "bf16", "fp16"), "gguf": ("fp32", "bf16", "fp16", "q8_0")}
EXPORT_EXAMPLES = """\
examples:
  lmlab export runs/demo/TIMESTAMP --to huggingface exported
  lmlab export runs/demo/TIMESTAMP --to huggingface exported --dtype bf16 --force
  lmlab export runs/demo/TIMESTAMP/checkpoints/step_00000500.pt --to gguf demo.gguf --dtype q8_0
"""
IMPORT_EXAMPLES = """\
examples:
  lmlab import ~/models/Qwen3-0.6B
  lmlab import ~/models/gpt2 --name gpt2 --output runs/gpt2
  lmlab generate runs/gpt2 --prompt 'Once upon a time'
"""


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `export` and `import` to the `lmlab` command."""
    parser = commands.add_parser(
        "export",
        help="write a run for transformers or llama.cpp",
        description="Write a run as a folder of transformers or as a GGUF file, with its tokenizer."
        " Before the command is done, transformers has computed the same logits, or llama.cpp, if "
        "llama-cpp-python is installed.",
        epilog=EXPORT_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", type=Path, metavar="RUN", help="a run, or one of its checkpoints")
    parser.add_argument("--to", choices=tuple(DTYPES), required=True, help="the format")
    parser.add_argument(
        "target", type=Path, metavar="TARGET", help="the new folder, or the new GGUF file"
    )
    parser.add_argument(
        "--dtype",
        choices=tuple(dict.fromkeys(name for names in DTYPES.values() for name in names)),
        default="fp32",
        help="type of the weights; q8_0 in GGUF only (default: fp32)",
    )
    parser.add_argument("--force", action="store_true", help="replace the target if it exists")
    parser.set_defaults(run=_export)

    parser = commands.add_parser(
        "import",
        help="make a run of a model that transformers can load",
        description="Make a run of a folder of transformers on this disk, weights and tokenizer. "
        "Before the command is done, transformers has computed the same logits.",
        epilog=IMPORT_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="the folder with config.json")
    parser.add_argument(
        "--output", type=Path, metavar="RUN", help="the new run (default: runs/NAME/TIMESTAMP)"
    )
    parser.add_argument("--name", help="name of the run (default: the folder's)")
    parser.set_defaults(run=_import)


def _export(options: argparse.Namespace) -> None:
    dtypes = DTYPES[options.to]
    if options.dtype not in dtypes:
        raise UserError(
            f"--dtype {options.dtype} is not known to {options.to}; use {', '.join(dtypes)}"
        )
    from lmlab.export import export_gguf, export_huggingface
    from lmlab.export.publishing import check_target
    from lmlab.export.text import exported
    from lmlab.loading import load

    check_target(options.target, options.force, "config.json" if options.to != "gguf" else None)
    run = load(options.source)
    write = export_gguf if options.to == "gguf" else export_huggingface
    print(exported(write(run, options.target, options.dtype, force=options.force)))


def _import(options: argparse.Namespace) -> None:
    from lmlab.export import import_huggingface
    from lmlab.export.text import imported
    from lmlab.hydra_app import compose

    done = import_huggingface(options.folder, compose(), output=options.output, name=options.name)
    print(imported(done))
