"""The result of a cleaning run as text."""

from pathlib import Path

from lmlab.cleaning.manifest import Manifest
from lmlab.errors import DataError


def summary(manifest: Manifest, directory: Path) -> str:
    """Return the funnel of a run: a line for each step with what it kept and why it removed."""
    total = manifest["documents"]
    rows = [("read", total, "")]
    for name, step in manifest["steps"].items():
        reasons = sorted(step["removed"].items(), key=lambda item: (-item[1], item[0]))
        rows.append((name, step["documents_out"], ", ".join(f"{r} {n:,}" for r, n in reasons)))
    width = max(len(name) for name, *_ in rows)
    digits = len(f"{total:,}")
    lines = [
        f"{name:<{width}}  {count:>{digits},}  {count / max(total, 1):>6.1%}  {why}".rstrip()
        for name, count, why in rows
    ]
    if manifest["problems"]:
        lines.append(
            f"passed over, because it could not be read: {manifest['problems']:,} "
            f"part{'s' * (manifest['problems'] != 1)} of the input (offsets in manifest.json), "
            f"first {_first_problem(manifest)}"
        )
    lines.append(
        f"{directory}: {manifest['kept']:,} documents, {manifest['kept_characters']:,} characters"
    )
    return "\n".join(lines)


def require_documents(manifest: Manifest) -> None:
    """Raise DataError, with the first reason, when no document was read."""
    if manifest["documents"]:
        return
    if manifest["problems"]:
        raise DataError(f"nothing of the input could be read: {_first_problem(manifest)}")
    first, *others = [file["path"] for file in manifest["files"]]
    more = f" and {len(others):,} more" if others else ""
    raise DataError(f"the input has no documents: {first}{more}; name files that hold text")


def _first_problem(manifest: Manifest) -> str:
    """Return the file, the offset and the reason of the first part that could not be read."""
    file = next(file for file in manifest["files"] if file["first_problems"])
    offset, reason = file["first_problems"][0]
    return f"{file['path']} at byte {offset:,}: {reason}"
