"""A cleaning run from its configuration to its manifest."""

from filelock import FileLock, Timeout

from lmlab.cleaning.job import Job, check_output, remove_leftovers, start
from lmlab.cleaning.manifest import Manifest, finish, is_finished
from lmlab.cleaning.pipeline_config import (
    CleanConfig,
    LocalExecutorConfig,
    SlurmExecutorConfig,
)
from lmlab.cleaning.plan import check
from lmlab.data.paths import find_files
from lmlab.errors import ConfigError, UserError

LOCK = ".lock"


def clean(config: CleanConfig, *, progress: bool = True) -> Manifest | None:
    """Clean the input files and return the manifest; None when Slurm does it later.

    A run that was begun in `config.output` resumes after its last finished tasks; one that has
    finished is not repeated. Raises UserError for what cannot be used, ConfigError for its key.
    """
    if not config.input:
        raise ConfigError("input", "is empty; name your files, e.g. 'input=[crawl/*.warc.gz]'")
    inputs = find_files("input", config.input, config.output)
    own = config.output.resolve()
    paths = [path for path in inputs.paths if not path.resolve().is_relative_to(own)]
    if not paths:
        raise ConfigError("input", "names only files of the output directory")
    check_output(config.output)
    check(config)
    config.output.mkdir(parents=True, exist_ok=True)
    lock = FileLock(config.output / LOCK)
    try:
        with lock.acquire(timeout=0):
            job = start(config, paths)
            return _run(job, config, progress)
    except Timeout:
        raise UserError(f"another process is cleaning into {config.output}; wait for it") from None


def _run(job: Job, config: CleanConfig, progress: bool) -> Manifest | None:
    if is_finished(job):
        return finish(job)
    executor = config.executor
    if isinstance(executor, LocalExecutorConfig):
        from lmlab.cleaning.local import run_local

        remove_leftovers(job)
        run_local(job, executor.workers, progress=progress)
        return finish(job)
    from lmlab.cleaning.cluster import run_datatrove, submit_slurm

    if isinstance(executor, SlurmExecutorConfig):
        ids = submit_slurm(job, executor)
        print(f"submitted jobs {', '.join(map(str, ids))}; the last writes the manifest")
        return None
    run_datatrove(job, executor)
    return finish(job)
