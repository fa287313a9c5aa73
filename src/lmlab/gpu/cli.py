"""`lmlab gpu`: calculators over hardware sheets, which need no GPU."""

import argparse
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, get_args

from lmlab.accounting.vocabulary import GPT2_VOCABULARY
from lmlab.arguments import png_file
from lmlab.errors import UserError
from lmlab.gpu.names import Precision, sheet_names
from lmlab.gpu.roofline_cli import add_roofline_options, roofline

if TYPE_CHECKING:
    from lmlab.gpu.sheets import Sheet

Subcommands = Any
Tool = Callable[[argparse.Namespace, "Sheet"], None]
EXAMPLES = """\
examples:
  lmlab gpu occupancy --threads 256 --registers 64 --shared-memory 49152
  lmlab gpu roofline model=small --phase training --batch 8 --plot roofline.png
  lmlab gpu roofline --matmul 4096 4096 4096 --gpu A100
  lmlab gpu waves 1792 1793
  lmlab gpu coalescing --stride 2 --width 4
  lmlab gpu tiling 4096 4096 4096
  lmlab gpu alignment 50257
"""
PATTERNS = ((1, 0), (2, 0), (4, 0), (8, 0), (32, 0), (0, 0), (1, 1))
"""Strides and offsets, in elements, that are shown when none is asked for."""
TILES = (1, 8, 16, 32, 64, 128, 256)


def register(commands: Subcommands) -> None:
    """Add `gpu` to the `lmlab` command."""
    parser = commands.add_parser(
        "gpu",
        help="calculate what a GPU can do: occupancy, roofline, waves, coalescing, tiling, "
        "alignment",
        description="Calculators over hardware sheets; they need no GPU. With --measure the same "
        "is measured on this machine's GPU and printed beside.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    tools = parser.add_subparsers(metavar="TOOL", required=True)

    tool = _add(tools, "occupancy", _occupancy, "blocks that an SM holds, and what limits them")
    tool.add_argument("--threads", type=int, default=256, metavar="N", help="of a block (256)")
    tool.add_argument("--registers", type=int, default=64, metavar="N", help="of a thread (64)")
    tool.add_argument(
        "--shared-memory", type=int, default=16384, metavar="BYTES", help="of a block (16384)"
    )

    tool = _add(tools, "roofline", roofline, "least time of a kernel, or of a model's operations")
    add_roofline_options(tool)
    _precision(tool)
    _measure(tool)

    tool = _add(tools, "waves", _waves, "tiles of a matrix product and their waves", "A100")
    tool.add_argument(
        "sizes", nargs="*", default=[1792, 1793], type=int, metavar="SIZE",
        help="of the square result (1792 1793)",
    )  # fmt: skip
    tool.add_argument(
        "--tile", nargs=2, type=int, default=(256, 128), metavar=("ROWS", "COLUMNS"), help="256 128"
    )
    tool.add_argument("--blocks-per-sm", type=int, default=1, metavar="N", help="at once (1)")
    _measure(tool)

    tool = _add(tools, "coalescing", _coalescing, "sectors of memory that a warp's addresses touch")
    tool.add_argument("--stride", type=int, metavar="N", help="elements between two threads")
    tool.add_argument(
        "--offset", type=int, metavar="BYTES", help="of the first one, with --stride (0)"
    )
    tool.add_argument("--width", type=int, default=4, metavar="BYTES", help="of an element (4)")
    _measure(tool)

    tool = _add(tools, "tiling", _tiling, "traffic and shared memory of a tiled matrix product")
    tool.add_argument(
        "sizes", nargs="*", type=int, default=[4096] * 3, metavar="M N K", help="4096 4096 4096"
    )
    tool.add_argument("--stages", type=int, default=2, metavar="N", help="of the pipeline (2)")
    _precision(tool)

    tool = _add(tools, "alignment", _alignment, "sizes that memory and tensor cores like")
    tool.add_argument(
        "sizes", nargs="*", type=int, default=[GPT2_VOCABULARY], metavar="SIZE", help="50257"
    )
    _precision(tool)


def _add(
    tools: Subcommands,
    name: str,
    run: Tool,
    text: str,
    gpu: str = "H100",
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = tools.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}."
    )
    parser.add_argument(
        "--gpu",
        default=gpu,
        metavar="NAME",
        help=f"{', '.join(sheet_names())}, or a sheet of your own: FILE.yaml (default: {gpu})",
    )
    parser.add_argument("--plot", type=png_file, metavar="FILE.png", help="draw it as well")
    parser.set_defaults(run=partial(_with_sheet, run))
    return parser


def _with_sheet(run: Tool, options: argparse.Namespace) -> None:
    from lmlab.gpu.sheets import load_sheet

    run(options, load_sheet(options.gpu))


def _precision(tool: argparse.ArgumentParser) -> None:
    tool.add_argument("--precision", choices=get_args(Precision), default="bf16")


def _measure(tool: argparse.ArgumentParser) -> None:
    tool.add_argument(
        "--measure", action="store_true", help="measure on this machine's GPU as well"
    )


def _occupancy(options: argparse.Namespace, sheet: "Sheet") -> None:
    from lmlab.gpu import plots
    from lmlab.gpu.occupancy import occupancy
    from lmlab.gpu.tables import occupancy_table

    kernel = occupancy(sheet, options.threads, options.registers, options.shared_memory)
    print("\n".join(occupancy_table(kernel)))
    if options.plot:
        plots.plot_occupancy(kernel, options.plot)


def _waves(options: argparse.Namespace, sheet: "Sheet") -> None:
    from lmlab.gpu import plots
    from lmlab.gpu.tables import waves_table
    from lmlab.gpu.waves import waves

    tile, per_sm = tuple(options.tile), options.blocks_per_sm
    found = [waves(sheet, size, size, tile, per_sm) for size in options.sizes]
    measured: list[float] = []
    if options.measure:
        from lmlab.profiling.measure import matmul_seconds, measured_on

        measured = [matmul_seconds(size, size, size, "bf16") for size in options.sizes]
        print(measured_on(sheet))
    print("\n".join(waves_table(sheet, found, measured)))
    if options.plot:
        plots.plot_waves(sheet, found, tile, per_sm, options.plot)


def _coalescing(options: argparse.Namespace, sheet: "Sheet") -> None:
    from lmlab.gpu import plots
    from lmlab.gpu.coalescing import access
    from lmlab.gpu.tables import coalescing_table

    patterns = [(stride, offset * options.width) for stride, offset in PATTERNS]
    if options.stride is not None:
        patterns = [(options.stride, options.offset or 0)]
    elif options.offset is not None:
        raise UserError("--offset is of one pattern; give --stride N with it")
    found = [access(sheet, stride, offset, options.width) for stride, offset in patterns]
    measured: list[float] = []
    if options.measure:
        if min(a.stride for a in found) < 0:
            raise UserError(f"--measure needs a stride of 0 or more, got {options.stride}")
        from lmlab.profiling.measure import measured_on, read_bandwidth

        measured = [read_bandwidth(a.stride, a.offset, a.width) for a in found]
        print(measured_on(sheet))
    print("\n".join(coalescing_table(sheet, found, measured)))
    if options.plot:
        plots.plot_coalescing(sheet, found, options.plot)


def _tiling(options: argparse.Namespace, sheet: "Sheet") -> None:
    from lmlab.gpu import plots
    from lmlab.gpu.tables import tiling_table
    from lmlab.gpu.tiling import tiling

    if len(options.sizes) != 3:
        given = " ".join(map(str, options.sizes))
        raise UserError(f"a matrix product has three sizes, M N K, got {given}")
    m, n, k = options.sizes
    found = [tiling(sheet, (m, n, k), t, options.precision, options.stages) for t in TILES]
    print("\n".join(tiling_table(sheet, found)))
    if options.plot:
        plots.plot_tiling(sheet, found, options.precision, options.plot)


def _alignment(options: argparse.Namespace, sheet: "Sheet") -> None:
    from lmlab.gpu import plots
    from lmlab.gpu.alignment import alignment
    from lmlab.gpu.tables import alignment_table

    found = [alignment(sheet, size, options.precision) for size in options.sizes]
    print("\n".join(alignment_table(sheet, found)))
    if options.plot:
        if len(options.sizes) > 1:
            raise UserError("--plot draws the sizes around one size; give one")
        plots.plot_alignment(sheet, options.sizes[0], options.precision, options.plot)
