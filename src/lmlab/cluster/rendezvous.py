"""Where the processes of a job meet: process 0 opens a port and tells the others in a file."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch.distributed as dist

from lmlab.cluster import slurm
from lmlab.cluster.processes import is_alive
from lmlab.cluster.records import read_record, write_record
from lmlab.errors import UserError

RENDEZVOUS = "rendezvous.json"
"""Written by process 0 of a job: the port, and which start of which job it is for."""
LIMIT = 1800.0
"""Seconds that the others wait for it, as long as torch waits for a process."""
_POLL = 0.1
_PROCESS = ("pid", "host", "start_time")
"""What tells a job outside Slurm, named by a process, from an earlier one of the same number."""
_open: list[Any] = []
"""Kept until this process exits: whoever holds the store serves it."""


def meet(directory: Path, status: Mapping[str, Any]) -> None:
    """Export what torch.distributed reads to join the job's processes, as torchrun does.

    The operating system picks the port. One picked before, such as submitit's, which it draws from
    the job's number, may belong to another program by the time it is opened. `status` is what the
    job records of this process. Raises UserError when process 0 opens no port.
    """
    import submitit

    job = submitit.JobEnvironment()
    if job.num_tasks == 1:
        return
    host, rank = job.hostnames[0], job.global_rank
    if rank == 0:
        port = _opened(host)
        write_record(directory / RENDEZVOUS, {**status, "port": port})
    else:
        port = _told(directory, status, LIMIT)
    names = {
        "MASTER_ADDR": host,
        "MASTER_PORT": port,
        "RANK": rank,
        "WORLD_SIZE": job.num_tasks,
        "LOCAL_RANK": job.local_rank,
        "TORCHELASTIC_USE_AGENT_STORE": True,  # process 0 must not open the port again
        "TORCHELASTIC_RESTART_COUNT": 0,
    }
    os.environ |= {name: str(value) for name, value in names.items()}


def _opened(host: str) -> int:
    """Open a port of this machine, known to the others by `host`; return its number."""
    server: Any = dist.TCPStore  # type: ignore[attr-defined]
    try:
        _open.append(server(host, 0, is_master=True, wait_for_workers=False))
    except dist.DistError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"process 0 cannot open a port on {host}: {reason}") from error
    return int(_open[-1].port)


def _told(directory: Path, status: Mapping[str, Any], limit: float) -> int:
    """Return the port that process 0 of the same start of the same job wrote."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        found = read_record(directory / RENDEZVOUS)
        same = all(found.get(name) == status[name] for name in ("job", "restarts"))
        if same and (slurm.this_job() or is_alive(*(found.get(name) for name in _PROCESS))):
            return int(found["port"])
        time.sleep(_POLL)
    raise UserError(
        f"process 0 did not write its port into {directory / RENDEZVOUS} within {limit:.0f} s; "
        "is this folder the same on all nodes?"
    )
