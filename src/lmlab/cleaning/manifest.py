"""manifest.json: what went in, what came out and why, by file and step."""

import json
from dataclasses import asdict
from typing import Any

from lmlab.cleaning.build import criteria
from lmlab.cleaning.job import MANIFEST, Job, Record, remove_leftovers, remove_work
from lmlab.cleaning.plan import count_passes, pass_name
from lmlab.errors import UserError
from lmlab.files import atomic_write

Manifest = dict[str, Any]
_KEYS = ("documents", "kept", "kept_characters", "problems", "steps", "criteria", "files")
_ADDED = ("documents_in", "documents_out", "characters_in", "characters_out")


def write_manifest(job: Job) -> Manifest:
    """Write and return the manifest of a run whose tasks are all done."""
    files = [_file(job, number) for number in range(len(job.inputs))]
    steps: dict[str, Record] = {}
    for file in files:
        for name, count in file["steps"].items():
            total = steps.setdefault(name, dict.fromkeys(_ADDED, 0) | {"removed": {}})
            for key in _ADDED:
                total[key] += count[key]
            for reason, documents in count["removed"].items():
                total["removed"][reason] = total["removed"].get(reason, 0) + documents
    for total in steps.values():
        total["removed"] = dict(sorted(total["removed"].items()))
    added = ("documents", "kept", "kept_characters", "problems")
    manifest = {
        "fingerprint": job.config.fingerprint(),
        "config": job.config.model_dump(mode="json", exclude={"executor", "output"}),
        **{key: sum(file[key] for file in files) for key in added},
        "steps": steps,
        "criteria": {
            name: [asdict(criterion) for criterion in found]
            for name, found in criteria(list(job.config.cleaning.steps.values())).items()
        },
        "files": files,
    }
    with atomic_write(job.directory / MANIFEST) as out:
        json.dump(manifest, out, indent=1)
    return manifest


def finish(job: Job) -> Manifest:
    """Write and return the manifest, the last file of a run, and remove what is not its result."""
    manifest = read_manifest(job) if is_finished(job) else write_manifest(job)
    remove_work(job)
    remove_leftovers(job)
    return manifest


def read_manifest(job: Job) -> Manifest:
    """Return the manifest; raises UserError when the run has not finished, or it is damaged."""
    path = job.directory / MANIFEST
    try:
        manifest: Manifest = json.loads(path.read_text(encoding="utf-8"))
        for key in _KEYS:
            manifest[key]
    except FileNotFoundError:
        raise UserError(
            f"{job.directory} has no {MANIFEST}: the run has not finished; start it again to resume"
        ) from None
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else "no JSON of a manifest"
        raise UserError(
            f"{path} is damaged ({reason}); remove it, and start the run again"
        ) from None
    return manifest


def is_finished(job: Job) -> bool:
    """Whether the manifest, which is written last, is there."""
    return (job.directory / MANIFEST).exists()


def _file(job: Job, number: int) -> Record:
    """Return what all passes found in one input file."""
    passes = [job.read_record(pass_name(p), number) for p in range(count_passes(job))]
    steps = {name: count for record in passes for name, count in record["steps"].items()}
    for count in steps.values():
        del count["seconds"]
    return {
        "path": str(job.inputs[number].path),
        "bytes": job.inputs[number].size,
        "shard": job.shard(number).relative_to(job.directory).as_posix(),
        "documents": passes[0]["documents"],
        "kept": passes[-1]["kept"],
        "kept_characters": passes[-1]["kept_characters"],
        "problems": passes[0]["problems"],
        "first_problems": passes[0]["first_problems"],
        "steps": steps,
    }
