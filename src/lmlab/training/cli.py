"""`lmlab checkpoint`: what a checkpoint holds, and the same checkpoint in the other layout."""

import argparse
from pathlib import Path

EXAMPLES = """\
examples:
  lmlab checkpoint show runs/demo/TIMESTAMP
  lmlab checkpoint convert runs/demo/TIMESTAMP --to plain
  lmlab checkpoint convert runs/demo/TIMESTAMP/checkpoints/step_00000500.pt --to sharded
"""


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `checkpoint` to the `lmlab` command."""
    parser = commands.add_parser(
        "checkpoint",
        help="show or convert a checkpoint",
        description="A checkpoint is plain, one file step_XXXXXXXX.pt, or sharded, a folder "
        "step_XXXXXXXX.dcp into which each process of a run with sharded weights writes its part. "
        "All commands, resume= and init_from= read both.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    show = actions.add_parser(
        "show",
        help="show what a checkpoint holds",
        description="Check the checksums of a checkpoint, and show its layout, step, size and "
        "weights.",
    )
    show.set_defaults(run=_show)
    convert = actions.add_parser(
        "convert",
        help="write a checkpoint in the other layout",
        description="Write a checkpoint in another layout beside itself. Its values stay the same "
        "bit by bit; it takes the memory of the whole checkpoint.",
    )
    convert.add_argument(
        "--to", choices=("plain", "sharded"), default="plain", help="the layout (default: plain)"
    )
    convert.set_defaults(run=_convert)
    for action in (show, convert):
        action.add_argument(
            "path", type=Path, metavar="RUN", help="a run, or one of its checkpoints"
        )


def _show(options: argparse.Namespace) -> None:
    from lmlab.layout import checkpoint_of
    from lmlab.text import aligned_table
    from lmlab.training.convert import describe

    checkpoint = checkpoint_of(options.path.expanduser())
    found = describe(checkpoint)
    files = "1 file" if found.files == 1 else f"{found.files} files"
    writers = "1 process" if found.processes == 1 else f"{found.processes} processes"
    optimizer = "none" if found.optimizer is None else f"state of {found.optimizer:,} parameters"
    rows = [
        ("checkpoint", str(checkpoint)),
        ("layout", f"{found.layout}, written by {writers}"),
        ("step", f"{found.step:,}"),
        ("tokens", f"{found.tokens:,}"),
        ("parameters", f"{found.parameters:,}"),
        ("optimizer", optimizer),
        ("size", f"{found.size:,} bytes in {files}; the checksums are right"),
    ]
    print("\n".join(aligned_table(rows)))
    print()
    table = [(name, " x ".join(map(str, s)), t) for name, (s, t) in found.weights.items()]
    print("\n".join(aligned_table([("weight", "shape", "type"), *table])))


def _convert(options: argparse.Namespace) -> None:
    from lmlab.layout import checkpoint_of
    from lmlab.training.convert import convert

    print(convert(checkpoint_of(options.path.expanduser()), options.to))
