"""A Slurm cluster of two virtual nodes on this machine; needs slurm-wlm, munge and root."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ports import free_ports

NODE = "NodeName={name} NodeHostName={host} NodeAddr=127.0.0.1 Port={port} CPUs=4 RealMemory=8000"
PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "scontrol", "squeue", "scancel")

CONFIG = """\
ClusterName=virtual
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
AuthType=auth/munge
AuthInfo=socket={root}/munge.socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=1
ReturnToService=2
SlurmUser=root
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool/%n
SlurmctldLogFile={root}/log/slurmctld.log
SlurmdLogFile={root}/log/slurmd.%n.log
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd.%n.pid
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
KillWait=15
MinJobAge=3600
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{nodes}
PartitionName=DEFAULT Nodes=ALL MaxTime=INFINITE State=UP DefMemPerCPU=2000
PartitionName=main Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=20
PartitionName=high PriorityTier=10 PreemptMode=OFF
"""


def missing() -> str | None:
    """Return why a cluster cannot be started here, None when it can."""
    if absent := [program for program in PROGRAMS if shutil.which(program) is None]:
        return f"not installed: {', '.join(absent)} (Debian: apt-get install slurm-wlm munge)"
    return "starting slurmd needs root" if os.geteuid() != 0 else None


class VirtualCluster:
    """Both virtual nodes, named so that both resolve: this host's name and `localhost`."""

    def __init__(self, root: Path) -> None:
        self.root, self.host = root, socket.gethostname()
        self.environment = os.environ | {"SLURM_CONF": str(root / "slurm.conf")}
        self._daemons: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start munged, slurmctld and two slurmd; raises TimeoutError when a node stays down."""
        for name in ("state", "log", f"spool/{self.host}", "spool/localhost"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o755)
        port, *ports = free_ports(3)
        names = (self.host, "localhost")
        nodes = [
            NODE.format(name=n, host=self.host, port=p) for n, p in zip(names, ports, strict=True)
        ]
        text = CONFIG.format(root=self.root, host=self.host, port=port, nodes="\n".join(nodes))
        (self.root / "slurm.conf").write_text(text)
        key = self.root / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        self._run(
            "munged",
            "--foreground",
            "--force",
            f"--socket={self.root}/munge.socket",
            f"--key-file={key}",
            f"--pid-file={self.root}/munged.pid",
            f"--log-file={self.root}/log/munged.log",
            f"--seed-file={self.root}/munge.seed",
        )
        wait_until((self.root / "munge.socket").exists, "munged")
        self._run("slurmctld", "-D", "-f", str(self.root / "slurm.conf"))
        self._nodes = {node: self._start_node(node) for node in names}
        self._wait_for_nodes()

    def _start_node(self, node: str) -> "subprocess.Popen[bytes]":
        return self._run("slurmd", "-D", "-f", str(self.root / "slurm.conf"), "-N", node)

    def _wait_for_nodes(self) -> None:
        wait_until(lambda: self.ask("sinfo", "-hN", "-o%N %t").count("idle") >= 4, "nodes")

    def lose(self, node: str) -> None:
        """Kill the daemon of a node, and have Slurm know at once, not after its five minutes."""
        self._nodes[node].kill()
        self._nodes[node].wait()
        self.tell("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=lost")

    def restore(self, node: str) -> None:
        """Start a lost node again."""
        self._nodes[node] = self._start_node(node)
        self._wait_for_nodes()

    def stop(self) -> None:
        """End all jobs and daemons."""
        self.ask("scancel", "--user=root")
        for process in reversed(self._daemons):
            process.send_signal(signal.SIGTERM)
        for process in self._daemons:
            try:
                process.wait(3)
            except subprocess.TimeoutExpired:
                process.kill()

    def _run(self, *command: str) -> "subprocess.Popen[bytes]":
        log = (self.root / "log" / f"{command[0]}.{len(self._daemons)}.out").open("wb")
        self._daemons.append(
            subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
        )
        return self._daemons[-1]

    def ask(self, *command: str) -> str:
        """Return what a Slurm command prints, an empty string when it fails."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    def tell(self, *command: str) -> str:
        """Return what a Slurm command prints; raises CalledProcessError when it fails."""
        done = subprocess.run(
            command, env=self.environment, check=True, stdout=subprocess.PIPE, text=True
        )
        return done.stdout.strip()

    def state(self, job: str) -> str:
        """Return Slurm's state of a job."""
        return self.ask("squeue", "-h", "-t", "all", "-j", job, "-o", "%T")

    def start_now(self, job: str) -> None:
        """Start a requeued job, which Slurm would hold for two minutes."""
        self.ask("scontrol", "update", f"JobId={job}", "StartTime=now")

    def preempt(self) -> str:
        """Take both nodes for a moment with a job of the higher partition; returns the job."""
        return self.tell(
            *("sbatch", "--parsable", "-p", "high", "-N2", "--exclusive", "-o", "/dev/null"),
            *("--wrap", "true"),
        )


def wait_until(condition: Callable[[], object], what: str, seconds: float = 90) -> None:
    """Wait for a condition; raises TimeoutError when it does not come true."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        time.sleep(0.2)


if __name__ == "__main__":  # PYTHONPATH=tests python THIS FOLDER: a cluster to play with
    cluster = VirtualCluster(Path(sys.argv[1]).absolute())
    cluster.start()
    print(f"export SLURM_CONF={cluster.root}/slurm.conf   (Ctrl-C stops it)", flush=True)
    try:
        signal.pause()
    except KeyboardInterrupt:
        cluster.stop()
