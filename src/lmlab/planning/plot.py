"""Picture of a plan: memory by part of each strategy beside its time."""

from pathlib import Path

from lmlab.figures import COLORS, FAINT, INK, ORANGE, picture
from lmlab.planning.plan import Plan
from lmlab.planning.text import best_rows


def plot_plan(plan: Plan, what: str, path: Path) -> None:
    """Draw the best plan of each layout: memory by part, and seconds of a step."""
    rows = [row for row in best_rows(plan) if row.memory and row.time][::-1]
    names = [
        f"{row.layout}\nmicro-batch {row.micro_batch}{', checkpointed' if row.checkpointed else ''}"
        for row in rows
    ]
    places = range(len(rows))
    height = 1.6 + 0.44 * len(rows)
    title = f"{what} on {plan.cluster.devices} x {plan.sheet.name}"
    with picture(path, title, (11.0, height), panels=2) as (left, right):
        parts = list(rows[0].memory.parts()) if rows and rows[0].memory else []
        ends = [0.0] * len(rows)
        for part, color in zip(parts, COLORS, strict=False):
            sizes = [row.memory.parts()[part] / 1e9 for row in rows if row.memory]
            left.barh(places, sizes, left=ends, color=color, label=part, height=0.62)
            ends = [end + size for end, size in zip(ends, sizes, strict=True)]
        limit = plan.usable / 1e9
        left.axvline(limit, color=INK, linestyle="--", linewidth=1.2)
        shown = min(max([*ends, limit]), 2.2 * limit)
        left.set_xlim(0, 1.04 * shown)
        for place, end in zip(places, ends, strict=True):
            if end > shown:
                left.annotate(
                    f"{end:,.0f} GB", (shown, place), ha="right", va="center", color="white",
                    fontsize=8, fontweight="bold",
                )  # fmt: skip
        left.annotate(
            f"{limit:,.0f} GB usable", (limit, 1.0), xycoords=("data", "axes fraction"),
            xytext=(3, 2), textcoords="offset points", fontsize=8,
        )  # fmt: skip
        left.set_yticks(places, names, fontsize=8)
        left.set(xlabel="memory of a device (GB)")
        left.legend(
            fontsize=8, edgecolor="none", ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.14)
        )
        kinds = {"compute": COLORS[0], "update": COLORS[2], "exposed": ORANGE}
        ends = [0.0] * len(rows)
        for kind, color in kinds.items():
            seconds = [getattr(row.time, kind) for row in rows]
            label = "exposed communication" if kind == "exposed" else kind
            bars = right.barh(places, seconds, left=ends, color=color, label=label, height=0.62)
            for bar, row in zip(bars, rows, strict=True):
                if not plan.fits(row):
                    bar.set_alpha(0.35)
            ends = [end + each for end, each in zip(ends, seconds, strict=True)]
        for place, row, end in zip(places, rows, ends, strict=True):
            note = " recommended" if row is plan.best else "" if plan.fits(row) else " does not fit"
            right.annotate(
                note, (end, place), va="center", fontsize=8,
                color=ORANGE if row is plan.best else FAINT,
            )  # fmt: skip
        right.set_xlim(0, 1.25 * max(ends))
        right.set_yticks(places, [""] * len(rows))
        right.set(xlabel="a step (s)")
        right.legend(
            fontsize=8, edgecolor="none", ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.14)
        )
