"""Run directories: writing them, reading them, and tables, plots and pages made of them.

| file | content |
| --- | --- |
| `run.py`, `environment.py`, `logger.py` | writing a run directory, and metrics to wandb |
| `names.py` | names of run directories |
| `read.py` | one run directory as a `RunRecord`; `find_runs` |
| `collect.py`, `statistics.py`, `verdict.py` | the results of a sweep, their tests, the answer |
| `tables.py`, `sweep_plot.py`, `sweep_report.py` | a sweep as a table, a picture, a page |
| `plot.py`, `report.py`, `page.py`, `curves.py` | a run as a picture and a page |
"""
