"""A picture of the packages of lmlab and of which imports which, made from the code."""

import ast
from html import escape
from pathlib import Path

WIDTH, HEIGHT, GAP, ROW = 172, 72, 18, 122


def code_map(root: Path) -> str:
    """Return an SVG to stand in a page: a row imports from the rows below it only."""
    source = root / "src" / "lmlab"
    packages = {
        path.name: path for path in sorted(source.iterdir()) if (path / "__init__.py").exists()
    }
    imports = {name: _imports(path, packages) for name, path in packages.items()}
    level: dict[str, int] = {}

    def height(name: str) -> int:
        if name not in level:
            level[name] = 1 + max((height(other) for other in imports[name]), default=-1)
        return level[name]

    for name in sorted(packages, key=height, reverse=True):  # as high as its users allow
        users = [level[other] for other in packages if name in imports[other]]
        level[name] = min(users, default=level[name] + 1) - 1
    rows: dict[int, list[str]] = {}
    for name in packages:
        rows.setdefault(level[name], []).append(name)
    top, widest = max(rows), max(map(len, rows.values()))
    width, total = widest * (WIDTH + GAP) + GAP, (top + 2) * ROW
    place: dict[str, tuple[float, float]] = {}
    for index, names in rows.items():
        left = (width - len(names) * (WIDTH + GAP) + GAP) / 2
        for column, name in enumerate(names):
            place[name] = (left + column * (WIDTH + GAP), (top - index + 1) * ROW)
    parts = []
    for name, others in imports.items():
        reached = {far for other in others for far in _reach(other, imports)}
        for other in sorted(others - reached):  # what follows from other arrows is left out
            (x1, y1), (x2, y2) = place[name], place[other]
            start, end = (x1 + WIDTH / 2, y1 + HEIGHT), (x2 + WIDTH / 2, y2)
            middle = (start[1] + end[1]) / 2
            parts.append(
                f'<path d="M{start[0]:.0f},{start[1]:.0f} C{start[0]:.0f},{middle:.0f} '
                f'{end[0]:.0f},{middle:.0f} {end[0]:.0f},{end[1] - 4:.0f}" class="edge" '
                'marker-end="url(#tip)"/>'
            )
    entry = (width - WIDTH * 2) / 2
    parts.append(
        _box(
            entry, 8, WIDTH * 2, "train.py, lmlab", "Hydra composes, config.py checks, a task runs"
        )
    )
    parts += [
        _box(x, y, WIDTH, f"{name}/", _purpose(packages[name])) for name, (x, y) in place.items()
    ]
    middle = width / 2
    parts.append(
        f'<path d="M{middle:.0f},{8 + HEIGHT} V{ROW - 6}" class="edge" marker-end="url(#tip)"/>'
    )
    return STYLE + (
        f'<svg class="code-map" viewBox="0 0 {width} {total}" role="img" '
        'aria-label="The packages and their imports" xmlns="http://www.w3.org/2000/svg">'
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0,0 L8,4 L0,8 z" class="tip"/></marker></defs>'
        + "".join(parts) + "</svg>"
    )  # fmt: skip


STYLE = (
    "<style>.code-map{width:100%;height:auto;font-family:var(--md-text-font-family,sans-serif)}"
    ".code-map rect{fill:var(--md-code-bg-color,#f5f5f5);stroke:var(--md-primary-fg-color,#3f51b5)}"
    ".code-map text{fill:var(--md-default-fg-color,#222);text-anchor:middle}"
    ".code-map .edge{fill:none;stroke:var(--md-default-fg-color--light,#888);stroke-width:1.2}"
    ".code-map .tip{fill:var(--md-default-fg-color--light,#888)}</style>\n"
)


def _box(x: float, y: float, width: float, title: str, text: str) -> str:
    lines = _wrapped(text, int(width / 5.6))[:3]
    words = "".join(
        f'<text x="{x + width / 2:.0f}" y="{y + 36 + 13 * i:.0f}" font-size="10.5">'
        f"{escape(line)}</text>"
        for i, line in enumerate(lines)
    )
    return (
        f'<rect x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{HEIGHT}" rx="6"/>'
        f'<text x="{x + width / 2:.0f}" y="{y + 19:.0f}" font-size="14" font-weight="bold">'
        f"{escape(title)}</text>{words}"
    )


def _wrapped(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) + 1 > width and lines[-1]:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def _purpose(package: Path) -> str:
    text = ast.get_docstring(ast.parse((package / "__init__.py").read_text(encoding="utf-8"))) or ""
    first = text.split("\n\n")[0].split(": `")[0].split("; ")[0]
    return " ".join(first.split()).rstrip(".")


def _imports(package: Path, packages: dict[str, Path]) -> set[str]:
    """Return the packages that the modules of one import."""
    found: set[str] = set()
    for path in package.rglob("*.py"):
        if path.name.endswith("cli.py"):  # commands stand above all packages
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            found |= {n.split(".")[1] for n in names if n.startswith("lmlab.")}
    return (found & set(packages)) - {package.name}


def _reach(name: str, imports: dict[str, set[str]]) -> set[str]:
    return imports[name] | {far for other in imports[name] for far in _reach(other, imports)}
