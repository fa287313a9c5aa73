"""What the benchmarks and experiments share: machine, markdown tables, sections of a README."""

import datetime
import importlib.metadata
import os
import platform
from collections.abc import Sequence
from pathlib import Path

from lmlab.files import atomic_write
from lmlab.text import markdown_table

markdown = markdown_table


def machine(packages: Sequence[str] = ()) -> str:
    """One line that says where and when, and with which versions."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    today = datetime.datetime.now(datetime.UTC).date()
    where = [str(today), model, f"{os.cpu_count()} cores", f"Python {platform.python_version()}"]
    return ", ".join(where + [f"{name} {importlib.metadata.version(name)}" for name in packages])


def put_section(readme: Path, name: str, text: str) -> None:
    """Replace what lies between `<!-- name -->` and `<!-- /name -->` in a README."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    content = readme.read_text() if readme.exists() else f"{begin}\n{end}\n"
    before, _, rest = content.partition(begin)
    _, _, after = rest.partition(end)
    with atomic_write(readme) as file:
        file.write(f"{before}{begin}\n{text.strip()}\n{end}{after}")
