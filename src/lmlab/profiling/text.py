"""A profile as lines of text."""

from lmlab.accounting.text import amount
from lmlab.profiling.analysis import Analysis
from lmlab.text import aligned_table

LINES = 12


def summary(a: Analysis) -> list[str]:
    """Return a step's time by phase and part, idle time, and what holds the peak of memory."""
    rest = "idle" if a.on_gpu else "outside of operators"
    lines = [
        f"a step takes {a.seconds * 1e3:,.2f} ms (sd {a.deviation * 1e3:.2f}, {a.steps} steps), "
        f"{1 - a.busy:.1%} of it {rest}"
    ]
    rows = [("phase", "ms on the GPU" if a.on_gpu else "ms a step", "share", "")]
    rows += [(row.name, f"{row.seconds * 1e3:,.2f}", f"{row.share:.1%}", "") for row in a.phases]
    rows += [("part", "ms a step", "share", "")]
    rows += [
        (row.name, f"{row.seconds * 1e3:,.2f}", f"{row.share:.1%}", "") for row in a.ranges[:LINES]
    ]
    lines += aligned_table(rows)
    if a.communication:
        lines.append(
            f"communication {a.communication * 1e3:,.2f} ms a step, "
            f"{a.hidden / a.communication:.0%} of it hidden behind computation"
        )
    if a.memory is not None:
        held = [f"{kind} in {where} {amount(size)}" for kind, where, size in a.memory.holders[:3]]
        lines.append(f"a step allocates up to {amount(a.memory.peak)}: {', '.join(held)}, ...")
    return lines
