"""What a job unpickles: it chooses the code, then hands over to it.

The function is pickled by value, so that no module of this package is imported before it has run.
"""

from __future__ import annotations


def start(directory: str, cwd: str, source: str | None, unchanged: str | None) -> str:
    """Run the job of a run directory with the code in `source`, or the installed one for None.

    `unchanged` is the hash that the installed code must have.
    """
    import os
    import sys

    os.chdir(cwd)
    if "SLURM_CPUS_PER_TASK" in os.environ:  # torch would take every core of the node
        os.environ.setdefault("OMP_NUM_THREADS", os.environ["SLURM_CPUS_PER_TASK"])
    if source is not None:  # an editable install finds its own modules before sys.path is asked
        sys.meta_path[:] = [
            finder for finder in sys.meta_path if "lmlab" not in type(finder).__module__
        ]
        sys.path.insert(0, source)
    from lmlab.cluster.job import run_job

    return run_job(directory, unchanged)
