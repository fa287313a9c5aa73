"""profile.html: one page that shows a trace, and works without a network."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from lmlab.accounting.text import amount
from lmlab.files import atomic_write
from lmlab.profiling.analysis import Analysis, analyse
from lmlab.profiling.profile import FACTS, Facts
from lmlab.profiling.trace import read_trace
from lmlab.runs.page import environment, plotly

PAGE = "profile.html"
SHOWN = 30
"""Operators in the page's table."""


def write_page(trace: Path, directory: Path) -> tuple[Path, Analysis]:
    """Write `directory/profile.html` from a trace; return its path and what it says.

    The facts about the model are read from profile.json beside the trace, when there is one.
    """
    analysis = analyse(read_trace(trace))
    facts = _facts(trace.parent / FACTS)
    template = environment(Path(__file__).parent / "templates").get_template("profile.html.j2")
    template.globals |= {"amount": amount, "milliseconds": milliseconds}
    page = template.render(
        title=facts.get("title", trace.name),
        trace=trace,
        a=analysis,
        facts=facts,
        state=sum(facts.get("state_bytes", {}).values()),
        shown=SHOWN,
        data={
            "bars": [asdict(bar) for bar in analysis.bars],
            "memory": asdict(analysis.memory) if analysis.memory else None,
            "state": facts.get("state_bytes", {}),
        },
        plotly=plotly(),
    )
    path = directory / PAGE
    with atomic_write(path) as file:
        file.write(page)
    return path, analysis


def _facts(path: Path) -> dict[str, Any]:
    try:
        return asdict(TypeAdapter(Facts).validate_json(path.read_bytes()))
    except (OSError, ValueError):  # a trace from elsewhere
        return {}


def milliseconds(seconds: float) -> str:
    """Return a time in milliseconds with three or more digits."""
    value = seconds * 1e3
    return f"{value:,.1f}" if value >= 100 else f"{value:.2f}" if value >= 1 else f"{value:.3f}"
