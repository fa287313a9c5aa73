"""report.html of a cleaning run: one page, which works without a network."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from lmlab.cleaning.job import open_job
from lmlab.cleaning.manifest import Manifest, read_manifest
from lmlab.cleaning.report import page_data, problem_rows
from lmlab.files import atomic_write
from lmlab.runs.page import environment

PAGE = "report.html"


def write_page(directory: Path, *, progress: bool = True) -> Path:
    """Write the page of a finished cleaning run into its directory, and return its path.

    Raises UserError when the directory holds no run, or one that has not finished.
    """
    job = replace(open_job(directory), directory=directory)
    manifest = read_manifest(job)
    data = page_data(job, manifest, progress=progress)
    template = environment(Path(__file__).parent / "templates").get_template("cleaning.html.j2")
    page = template.render(
        title=directory.resolve().name,
        directory=str(directory),
        m=manifest,
        funnel=_funnel(manifest),
        problems=problem_rows(manifest),
        sampled=len(data["removed"]),
        data=data,
    )
    path = directory / PAGE
    with atomic_write(path) as file:
        file.write(page)
    return path


def _funnel(manifest: Manifest) -> list[dict[str, Any]]:
    """Return a row for each step: documents and characters that it kept, and why it removed."""
    total = max(manifest["documents"], 1)
    return [
        {
            "name": name,
            "documents": step["documents_out"],
            "share": step["documents_out"] / total,
            "removed": step["documents_in"] - step["documents_out"],
            "removed_share": (step["documents_in"] - step["documents_out"]) / total,
            "characters": step["characters_out"],
            "reasons": sorted(step["removed"].items(), key=lambda item: (-item[1], item[0])),
        }
        for name, step in manifest["steps"].items()
    ]
