"""`lmlab profile`, `lmlab benchmark` and `lmlab demo`: measurements of training steps."""

import argparse
import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmlab.errors import UserError

if TYPE_CHECKING:
    from lmlab.config import RunConfig

Subcommands = Any
EXAMPLES = """\
examples:
  lmlab profile model=small trainer.batch_size=2
  lmlab profile runs/demo/2026-01-31_10-00-00
  lmlab profile model.attention.backend=eager --steps 5 --output profiles/eager
  lmlab profile runs/profile/2026-01-31_10-00-00/trace.json
"""
SIZES = {"GPU": ["small", "medium", "large", "xl", "2_7b"], "CPU": ["tiny", "small"]}
CONTEXTS = {"GPU": [128, 256, 512, 1024], "CPU": [128, 256]}
"""What `benchmark steps` times by default; a CPU takes minutes for more."""
ROWS = {"model": "--sizes", "model.context_length": "--contexts", "trainer.batch_size": "--batch"}
"""Keys that `benchmark steps` sets itself."""
CPU_BUDGET = 20.0
STEPS = 3
DEMOS = ("accumulation", "communication", "dtypes", "fusion", "recomputation")


def register(commands: Subcommands) -> None:
    """Add `profile`, `benchmark` and `demo` to the `lmlab` command."""
    profile = commands.add_parser(
        "profile",
        help="profile training steps: time and memory by part of the model",
        description="Profile training steps on random tokens, and write trace.json and a page "
        "that shows phases, parts of the model, operators or kernels, idle time and memory. "
        "Given a trace.json of one process, it makes the page of it.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    profile.add_argument(
        "overrides",
        nargs="*",
        metavar="RUN | KEY=VALUE",
        help="a run directory, a trace.json, or as for train.py",
    )
    profile.add_argument("--steps", type=int, metavar="N", help="recorded (3)")
    profile.add_argument(
        "--output", type=Path, metavar="DIR", help="default: RUN/profile, else runs/profiles"
    )
    profile.set_defaults(run=run_profile)

    benchmark = commands.add_parser(
        "benchmark",
        help="time training steps and attention by size and length, as Markdown tables",
        description="Time training steps and attention, as Markdown tables; a setting that does "
        "not fit into memory is a row that says so.",
    )
    kinds = benchmark.add_subparsers(metavar="WHAT", required=True)
    steps = kinds.add_parser(
        "steps",
        help="forward, backward and optimizer by size and context",
        description="Time forward, backward and optimizer of each model size and context, each "
        "in a process of its own, with 0, 1, 2 and 5 warmup steps.",
    )
    steps.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for train.py")
    steps.add_argument("--sizes", nargs="+", metavar="MODEL", help=_by_device(SIZES))
    steps.add_argument("--contexts", nargs="+", type=int, metavar="N", help=_by_device(CONTEXTS))
    steps.add_argument("--warmups", nargs="+", type=int, default=[0, 1, 2, 5], metavar="N")
    steps.add_argument("--steps", type=int, default=10, metavar="N", help="averaged (10)")
    steps.add_argument("--batch", type=int, default=4, metavar="N", help="sequences (4)")
    steps.set_defaults(run=run_steps)

    attention = kinds.add_parser(
        "attention",
        help="forward, memory and backward by head width and length",
        description="Time causal attention with one head for each head width d and length N.",
    )
    attention.add_argument("--backend", choices=("eager", "sdpa"), default="eager")
    attention.add_argument("--widths", nargs="+", type=int, default=[16, 32, 64, 128], metavar="d")
    attention.add_argument(
        "--lengths", nargs="+", type=int, default=[256, 1024, 4096, 8192, 16384], metavar="N"
    )
    attention.add_argument("--batch", type=int, default=8, metavar="N", help="sequences (8)")
    attention.add_argument("--repeats", type=int, default=10, metavar="N", help="averaged (10)")
    attention.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    attention.add_argument(
        "--budget",
        type=float,
        metavar="SECONDS",
        help="leave out lengths that would take longer, by the time of the one before "
        "(CPU: 20, GPU: none)",
    )
    attention.set_defaults(run=run_attention)
    for parser in (steps, attention):
        parser.add_argument(
            "--output", type=Path, metavar="FILE.md", help="default: standard output"
        )

    demo = commands.add_parser(
        "demo",
        help="show rounding, autocast, fusion, recomputation and communication at work",
        description="Show what the hardware does: accumulation in 16 bits, the dtype of each "
        "module under autocast, kernels before and after fusion, tensors saved with and without "
        "recomputation. They run on the CPU.",
    )
    demo.add_argument("name", nargs="*", metavar="DEMO", help=f"{', '.join(DEMOS)} (all)")
    demo.set_defaults(run=run_demos)


def _by_device(defaults: Mapping[str, Sequence[object]]) -> str:
    """Return the help text of defaults that depend on the device."""
    parts = [f"{' '.join(map(str, values))} on a {name}" for name, values in defaults.items()]
    return f"default: {', '.join(parts)}"


def run_profile(options: argparse.Namespace) -> None:
    """Profile, write the page, and print the main numbers."""
    _quiet()
    from lmlab.profiling.page import PAGE, write_page

    if options.steps is not None:
        _positive({"--steps": [options.steps]})
    what = options.overrides
    if what and what[0].endswith((".json", ".json.gz")):
        trace = Path(what[0])
        if len(what) > 1 or options.steps is not None:
            raise UserError(f"{trace} is a trace; give it without --steps and KEY=VALUE")
        directory = options.output or trace.parent
    else:
        from lmlab.files import require_writable
        from lmlab.profiling.profile import record
        from lmlab.profiling.steps import check_step
        from lmlab.training.watch import TRACE

        config, vocab_size, folder = configured(what)
        directory = options.output or folder
        check_step(config, vocab_size)
        require_writable(directory / PAGE)
        record(config, vocab_size, options.steps or STEPS, directory)
        trace = directory / TRACE
    from lmlab.profiling.text import summary

    page, analysis = write_page(trace, directory)
    print("\n".join([*summary(analysis), f"trace: {trace}", f"page: {page}"]))


def configured(what: list[str]) -> "tuple[RunConfig, int, Path]":
    """Return the configuration, the vocabulary size and the default folder of what is profiled.

    Raises UserError for a path that is no run directory, or a run that is named with overrides.
    """
    from lmlab.accounting.vocabulary import declared_vocab_size
    from lmlab.config import load_yaml
    from lmlab.hydra_app import compose
    from lmlab.layout import CONFIG, TOKENIZER, run_of

    if what and ("=" not in what[0] or Path(what[0]).expanduser().exists()):
        directory = run_of(Path(what[0]).expanduser())
        if len(what) > 1:
            raise UserError(
                f"{directory} is profiled as it is; for other values give KEY=VALUE alone"
            )
        if not (directory / CONFIG).is_file():
            raise UserError(f"{directory} is not a run directory: it has no {CONFIG}")
        config = load_yaml(directory / CONFIG)
        if config.model.vocab_size or not (directory / TOKENIZER).is_dir():
            vocab_size = config.model.vocab_size or declared_vocab_size(config.tokenizer)
        else:
            from lmlab.tokenizer import Tokenizer

            vocab_size = Tokenizer.load(directory / TOKENIZER).vocab_size
        return config, vocab_size, directory / "profile"
    config = compose(*what)
    vocab_size = declared_vocab_size(config.tokenizer)
    if config.tokenizer.kind == "bpe":  # which gets less on little text
        vocab_size = config.model.vocab_size or vocab_size
    return config, vocab_size, Path("runs/profiles")


def run_steps(options: argparse.Namespace) -> None:
    """Print or write the table of training steps."""
    import torch

    from lmlab.hydra_app import compose
    from lmlab.profiling.benchmark import VOCABULARY, Setting, step_table
    from lmlab.profiling.steps import check_step

    for override in options.overrides:
        key = override.lstrip("+~").partition("=")[0]
        if key in ROWS:
            raise UserError(f"'{override}': the rows of the table say it; give {ROWS[key]}")
    counts = {"--steps": [options.steps], "--batch": [options.batch]}
    _positive(counts | {"--contexts": options.contexts or [1]})
    if min(options.warmups) < 0:
        raise UserError(f"--warmups must be 0 or more, got {min(options.warmups)}")
    kind = "GPU" if torch.cuda.is_available() else "CPU"
    sizes, contexts = options.sizes or SIZES[kind], options.contexts or CONTEXTS[kind]
    fixed = [f"trainer.batch_size={options.batch}", f"model.vocab_size={VOCABULARY}"]
    fixed += ["trainer.compile=false", *options.overrides]
    settings = [
        Setting(size, compose(f"model={size}", f"model.context_length={context}", *fixed))
        for size in sizes
        for context in contexts
    ]
    for setting in settings:  # a mistake is said before anything is timed
        check_step(setting.config, setting.vocabulary)
    _require_writable(options.output)
    _write(step_table(settings, sorted(options.warmups), options.steps, _progress), options.output)


def run_attention(options: argparse.Namespace) -> None:
    """Print or write the table of attention."""
    from lmlab.profiling.attention import attention_table
    from lmlab.training.device import resolve_device

    counts = {"--widths": options.widths, "--lengths": options.lengths}
    _positive(counts | {"--batch": [options.batch], "--repeats": [options.repeats]})
    device = resolve_device(options.device)
    budget = CPU_BUDGET if device.type == "cpu" else None
    if options.budget is not None:
        budget = options.budget
        if not 0 < budget < math.inf:
            raise UserError(f"--budget must be a number of seconds above 0, got {budget:g}")
    _require_writable(options.output)
    table = attention_table(
        options.backend,
        options.widths,
        sorted(options.lengths),
        options.batch,
        device,
        repeats=options.repeats,
        budget=budget,
    )
    _write(table, options.output)


def _quiet() -> None:
    """Silence what the profiler's library logs; it reads these before torch is imported."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


def _positive(options: dict[str, list[int]]) -> None:
    for name, values in options.items():
        if min(values) < 1:
            raise UserError(f"{name} must be 1 or more, got {min(values)}")


def _progress(text: str) -> None:
    print(text, file=sys.stderr)


def _require_writable(output: Path | None) -> None:
    """Say before long work that its result could not be kept."""
    from lmlab.files import require_writable

    if output is not None:
        require_writable(output)


def _write(table: str, output: Path | None) -> None:
    if output is None:
        print(table)
        return
    from lmlab.files import atomic_write

    with atomic_write(output) as file:
        file.write(f"{table}\n")


def run_demos(options: argparse.Namespace) -> None:
    """Print the demos that are named, or all."""
    _quiet()
    from lmlab.planning.course import communication
    from lmlab.profiling import demos

    chosen = options.name or DEMOS
    for name in chosen:
        if name not in DEMOS:
            raise UserError(f"no demo '{name}'; demos: {', '.join(DEMOS)}")
    from lmlab.hydra_app import compose

    texts = {
        "accumulation": demos.accumulation,
        "communication": communication,
        "dtypes": lambda: demos.dtypes(compose("model=tiny").model),
        "fusion": demos.fusion,
        "recomputation": demos.recomputation,
    }
    print("\n\n".join("\n".join([name, *texts[name]()]) for name in chosen))
