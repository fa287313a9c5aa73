"""Runs that are submitted and let go: to Slurm, or to this machine's processes."""
