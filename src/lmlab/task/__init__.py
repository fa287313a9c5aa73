"""What a model is trained for: `run` starts the configured task.

A task (`base.py`) brings its data, objective and evaluation; `lifecycle.py` and `setup.py` are
shared by all. To add one: a class in `config.py`, a YAML in conf/task/, a subclass of `Task`, and
a line in `run`.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmlab.config import RunConfig


def run(config: "RunConfig", directory: Path) -> None:
    """Run the configured task in a run directory."""
    from lmlab.task.dpo import DPO
    from lmlab.task.lifecycle import run_task
    from lmlab.task.policies import GRPO, PPO, ExpertIteration
    from lmlab.task.pretrain import Pretrain
    from lmlab.task.sft import SFT

    tasks = {
        "pretrain": Pretrain,
        "sft": SFT,
        "dpo": DPO,
        "grpo": GRPO,
        "expert_iteration": ExpertIteration,
        "ppo": PPO,
    }
    run_task(config, directory, tasks[config.task.kind])
