"""How durations and tables are written as text, in all commands and pages."""

from collections.abc import Sequence

MINUTE, HOUR, DAY = 60, 3600, 86400


def duration(seconds: float) -> str:
    """Return a time in its two largest units: 40 s, 3 min 10 s, 2 h 05 min, 12.3 days."""
    if seconds < MINUTE:
        text = f"{seconds:.3g}"
        return f"{text} s" if text != "60" else "1 min 00 s"
    if seconds >= 2 * DAY:
        return f"{seconds / DAY:,.1f} days"
    hours, rest = divmod(round(seconds), HOUR)
    minutes, left = divmod(rest, MINUTE)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {left:02} s"


def markdown_table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    text: int = 1,
    aligned: bool = False,
) -> str:
    """Return a Markdown table; the first `text` columns are text, the others are figures.

    With `aligned`, cells are padded to the width of their column, for a terminal.
    """
    rule = ["---"] * text + ["---:"] * (len(header) - text)
    if not aligned:
        return "\n".join(_markdown_line(cells) for cells in (header, rule, *rows))
    escaped = [[_escaped(cell) for cell in cells] for cells in (header, *rows)]
    widths = [max(3, *map(len, column)) for column in zip(*escaped, strict=True)]
    rule = [
        "-" * width if index < text else "-" * (width - 1) + ":"
        for index, width in enumerate(widths)
    ]
    lines = [
        [
            cell.ljust(width) if index < text else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        for cells in escaped
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (lines[0], rule, *lines[1:]))


def aligned_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return lines with aligned columns: first and last to the left, the others to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if index in (0, len(row) - 1) else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def shortened(text: str, width: int) -> str:
    """Return text of at most `width` characters, cut in its middle."""
    if len(text) <= width:
        return text
    end = max(0, (width - 1) // 2)
    return text[: width - 1 - end] + "…" + (text[-end:] if end else "")


def _markdown_line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_escaped, cells))} |"


def _escaped(cell: str) -> str:
    return cell.replace("|", r"\|")
