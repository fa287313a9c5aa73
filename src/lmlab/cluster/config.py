"""Configuration of what a run asks of a Slurm cluster."""

from typing import Annotated, Literal

from pydantic import Field

from lmlab.schema import Config

Count = Annotated[int, Field(ge=1)]
Extra = str | int | float | bool


class SlurmConfig(Config):
    """What each run of a sweep gets from Slurm, the same for all: a sweep is one array."""

    partition: str | None
    """null: the cluster's default."""
    account: str | None
    """null: the user's default."""
    qos: str | None
    """null: the default."""
    constraint: str | None
    """Features that a node must have; null: any."""
    timeout_min: Count
    """Time limit of a job in minutes; a run that needs longer is requeued and resumes."""
    nodes: Count
    """Nodes of one run."""
    tasks_per_node: Count
    """Processes of one run on a node, one a GPU; together they train one model."""
    gpus_per_node: Annotated[int, Field(ge=0)] | None
    """null: ask for none, and use what is there."""
    cpus_per_task: Count | None
    """null: the cluster's default."""
    mem_gb: Annotated[float, Field(gt=0)] | None
    """Memory of a node in GB; null: the cluster's default."""
    array_parallelism: Count
    """Jobs of a sweep that run at the same time, at most."""
    signal_delay_s: Count
    """Seconds before the time limit at which a run is told to save and requeue."""
    max_restarts: Annotated[int, Field(ge=0)]
    """How often a run that reaches its time limit is requeued; preemptions do not count."""
    setup: list[str]
    """Shell commands before the run, such as `module load cuda`."""
    code: Literal["snapshot", "unchanged"]
    """snapshot: jobs run a copy of the submitted code; unchanged: they fail when it differs."""
    extra: dict[str, Extra]
    """Further sbatch options, `+slurm.extra.mail-type=END`; true for one without a value."""
