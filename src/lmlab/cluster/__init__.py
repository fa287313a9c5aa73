"""The runs of a sweep: launched on Slurm or on this machine, watched, cancelled, resumed.

| file | content |
| --- | --- |
| `submission.py` | what launchers share: jobs, which are left to run, the lock of a sweep |
| `launch_sequential.py`, `launch_processes.py`, `launch_slurm.py` | the three launchers |
| `existing_runs.py` | the runs of a sweep by fingerprint |
| `start.py`, `job.py`, `snapshot.py` | inside a job: choose the code, train, handle signals |
| `rendezvous.py` | how the processes of a job meet |
| `records.py` | the small files in a run directory that describe its job |
| `run_state.py`, `run_progress.py`, `run_table.py` | state, progress, the table of `lmlab runs` |
| `slurm.py`, `processes.py`, `cancel.py` | queries and signals to Slurm and to processes |
"""
