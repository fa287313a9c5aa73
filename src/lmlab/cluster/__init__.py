"""Runs that are submitted and let go: to Slurm, or to processes of this machine."""
