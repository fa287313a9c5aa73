"""Put greedy accuracies of runs on held-out problems into the README, and draw them against time.

python experiments/alignment/table.py runs/alignment    # folders start_0, grpo_0, control_0, ...
python experiments/alignment/table.py runs/countdown --problems countdown

A folder's name is what it is and its seed. Supervised runs log no accuracy: their checkpoints are
evaluated. Seconds are those of training, as logged, evaluations left out.
"""

import argparse
import json
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

from benchmarks.tables import machine, markdown, put_section  # noqa: E402

import lmlab  # noqa: E402
from lmlab.alignment.problems import open_problems  # noqa: E402
from lmlab.alignment.problems.config import (  # noqa: E402
    AdditionConfig,
    CountdownConfig,
    ProblemsConfig,
)
from lmlab.alignment.rewards import checked, reward_function  # noqa: E402
from lmlab.io.progress import say  # noqa: E402


@dataclass(frozen=True)
class Study:
    """Problems, and the runs that are compared on them."""

    problems: ProblemsConfig
    reward: str
    max_new_tokens: int
    section: str
    """Of the README."""
    picture: str
    names: dict[str, str]
    """Folder without its seed -> what it is."""

    def accuracy(self, run: Path) -> float:
        """Return the share of held-out problems whose likeliest answer is right."""
        problems = open_problems(self.problems, say).held_out
        answers = lmlab.load(run).generate(
            [problem.prompt for problem in problems],
            max_batch=256,
            dtype="fp32",
            temperature=0.0,
            max_new_tokens=self.max_new_tokens,
            stop="\n",
        )
        reward = reward_function(self.reward)
        pairs = zip(answers, problems, strict=True)
        rewards = [checked(reward(p.prompt, a.text, p.truth)).answer for a, p in pairs]
        return sum(value >= 1 for value in rewards) / len(problems)


STUDIES = {
    "addition": Study(
        problems=AdditionConfig(kind="addition", digits=2, held_out=0.1),
        reward="arithmetic",
        max_new_tokens=8,
        section="table",
        picture="accuracy.png",
        names={
            "start": "start: SFT on 2,000 demonstrations",
            "control": "control: SFT goes on, same demonstrations",
            "grpo": "GRPO, all 7,289 training sums",
            "grpo_same": "GRPO, the 2,000 sums of the demonstrations",
            "expert_iteration": "expert iteration, all training sums",
            "ppo": "PPO, all training sums",
            "dpo": "DPO, right over wrong samples of the start",
        },
    ),
    "countdown": Study(
        problems=CountdownConfig(
            kind="countdown", numbers=3, largest=9, count=20_000, held_out=0.05
        ),
        reward="countdown",
        max_new_tokens=16,
        section="countdown",
        picture="countdown.png",
        names={
            "start": "start: SFT on 5,000 demonstrations",
            "control": "control: SFT goes on, same demonstrations",
            "grpo": "GRPO, all training problems",
        },
    ),
}


def curve(study: Study, run: Path) -> list[tuple[float, float]]:
    """Return seconds of training and accuracy, at the start and at each evaluation."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    rows: list[dict[str, Any]] = [json.loads(line) for line in lines]
    known = [(row["seconds"], row["val/accuracy"]) for row in rows if "val/accuracy" in row]
    if run.name.startswith("dpo"):  # whose accuracy is that of the pairs
        known = []
    if known:
        return known
    seconds = {row["step"]: row["seconds"] for row in rows}
    found = {int(path.stem.split("_")[1]): path for path in run.glob("checkpoints/step_*.pt")}
    return [(seconds[step], study.accuracy(path)) for step, path in sorted(found.items())]


def over_seeds(values: list[float], digits: int) -> str:
    """Return mean and standard deviation."""
    text = f"{statistics.mean(values):.{digits}f}"
    return f"{text} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else text


def draw(study: Study, curves: dict[str, list[list[tuple[float, float]]]]) -> None:
    """Draw accuracy against seconds, a line for each run, beginning at the start's accuracy."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for number, (name, runs) in enumerate(curves.items()):
        for index, points in enumerate(runs):
            label = study.names[name] if index == 0 else None
            axes.plot(*zip(*points, strict=True), f"C{number}", label=label, lw=1.2)
    axes.set(xlabel="seconds of training after the start", ylabel="greedy accuracy, held out")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, fontsize="small")
    FigureCanvasAgg(figure).print_figure(HERE / study.picture, dpi=130)


def main() -> None:
    """Write the table and the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--problems", choices=STUDIES, default="addition")
    options = parser.parse_args()
    study = STUDIES[options.problems]
    torch.set_num_threads(1)
    rows, curves = [], {}
    starts: dict[str, float] = {}
    for name, title in study.names.items():
        runs = {
            run.name.rpartition("_")[2]: run
            for run in sorted(options.folder.glob(f"{name}_[0-9]"))
            if (run / "result.json").exists()
        }
        if not runs:
            continue
        last = {seed: study.accuracy(run) for seed, run in runs.items()}
        if name == "start":
            starts = last
        else:
            curves[name] = [[(0.0, starts[s]), *curve(study, run)] for s, run in runs.items()]
        gains = [100 * (value - starts[seed]) for seed, value in last.items()]
        results = [json.loads((run / "result.json").read_text()) for run in runs.values()]
        rows.append(
            [
                title,
                over_seeds(list(last.values()), 3),
                ", ".join(f"{value:.3f}" for value in last.values()),
                "" if name == "start" else over_seeds(gains, 1),
                over_seeds([result["seconds"] for result in results], 0),
                f"{results[0]['steps']:,}",
            ]
        )
    head = ["run", "greedy accuracy", "each seed", "points gained", "seconds", "steps"]
    text = f"{machine(['torch'])}, one thread each.\n\n{markdown(head, rows)}"
    put_section(HERE / "README.md", study.section, text)
    draw(study, curves)


if __name__ == "__main__":
    main()
