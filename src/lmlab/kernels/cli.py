"""`lmlab kernels`: compile the Triton kernels without a GPU, or measure them on one."""

import argparse
import re

from lmlab.errors import UserError

TARGETS = (80, 90, 100)


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `kernels` to the `lmlab` command."""
    parser = commands.add_parser("kernels", help="check and measure the Triton kernels")
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    compiled = actions.add_parser(
        "compile",
        help="compile for GPUs that are not there: registers, spills, shared memory",
        description="Print what each kernel needs on each architecture; fails where one spills.",
    )
    compiled.add_argument(
        "--targets", nargs="+", type=int, choices=TARGETS, default=TARGETS, metavar="SM",
        help="compute capabilities without their dot (default: 80 90 100)",
    )  # fmt: skip
    compiled.add_argument("--only", default="", metavar="REGEX", help="kernels whose name matches")
    compiled.set_defaults(run=_compile)
    measured = actions.add_parser(
        "measure",
        help="time the kernels beside torch on this GPU; `auto` then takes the faster ones",
        description="Time the kernels beside torch on this GPU and keep the ratios for `auto`.",
    )
    measured.set_defaults(run=_measure)


def _compile(options: argparse.Namespace) -> None:
    from lmlab.kernels.support import INSTALL, INSTALLED, INTERPRETED

    if not INSTALLED:
        raise UserError(f"compiling kernels needs Triton: {INSTALL}")
    if INTERPRETED:
        raise UserError("TRITON_INTERPRET=1 interprets kernels instead of compiling; unset it")
    try:
        pattern = re.compile(options.only)
    except re.error as error:
        raise UserError(f"--only '{options.only}' is no regular expression: {error}") from error
    from lmlab.kernels.compile_ahead import compile_all, table

    rows = list(compile_all(options.targets, pattern))
    if not rows:
        raise UserError(f"--only '{options.only}' matches no kernel; leave it out to see all names")
    print(table(rows))
    failed = [row for row in rows if row.problems()]
    if failed:
        raise UserError(f"{len(failed)} of {len(rows)} kernels have a problem, see the last column")


def _measure(options: argparse.Namespace) -> None:
    import torch

    from lmlab.kernels.measured import measure, record

    if not torch.cuda.is_available():
        raise UserError("kernels are measured on a CUDA device, torch finds none here")
    device = torch.device("cuda")
    ratios = measure(device)
    for name, ratio in ratios.items():
        print(f"{name:<14} {ratio:.2f} x torch")
    print(f"kept in {record(device, ratios)}")
