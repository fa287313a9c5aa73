"""A reward that can be gamed: the report shows a rising reward beside a falling accuracy."""

import json
from pathlib import Path

from alignment.small_policies import MODEL, RUN
from lmlab.alignment.rewards import Reward
from lmlab.runs.read import read_run
from lmlab.runs.report import write_report
from lmlab.runs.rollouts import opposed
from lmlab.task import run
from tests_support import composed


def long_numbers(prompt: str, response: str, truth: str) -> Reward:
    """Reward digits, though the answer is one digit."""
    digits = sum(character.isdigit() for character in response)
    return Reward(1.0, float(response.strip() == truth), digits / 5)


def test_a_gamed_reward_is_visible(tmp_path: Path) -> None:
    for name, count in (("train", 400), ("validation", 40)):
        rows = ({"prompt": f"{i}=", "answer": "1", "text": f"{i}=1\n"} for i in range(count))
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    train, held_out = tmp_path / "train.jsonl", tmp_path / "validation.jsonl"
    start = composed(
        *MODEL,
        "data=text",
        f"data.paths=['{train}']",
        f"data.validation_paths=['{held_out}']",
        f"data.cache_dir='{tmp_path / 'cache'}'",
        "budget.steps=60",
        "trainer.batch_size=16",
        "trainer.device=cpu",
        "trainer.eval_windows=4",
        "trainer.num_threads=1",
        "task.sample.tokens=0",
    )
    run(start, tmp_path / "start")
    gamed = composed(
        f"init_from={tmp_path / 'start'}",
        "task=grpo",
        "task/problems=files",
        f"task.problems.path='{train}'",
        f"task.problems.validation_path='{held_out}'",
        *[item for item in RUN[len(MODEL) :] if not item.startswith("task.problems")],
        "task.reward=task.test_reward_hacking.long_numbers",
        "task.rollout.prompts=4",
        "task.rollout.samples=8",
        "trainer.batch_size=32",
        "budget.steps=40",
        "trainer.eval_every=40",
        "lr=3e-3",
    )
    directory = tmp_path / "gamed"
    run(gamed, directory)
    record = read_run(directory)
    accuracy = record.series("val/accuracy")[1]
    assert accuracy[0] > 0.5 > accuracy[-1]
    found = opposed(record)
    assert found is not None
    assert found.reward[1] > found.reward[0] + 0.2
    write_report(directory)
    for page in ("report.html", "rollouts.html"):
        assert "the policy exploits the reward" in (directory / page).read_text()
    honest = read_run(tmp_path / "start")
    assert opposed(honest) is None
