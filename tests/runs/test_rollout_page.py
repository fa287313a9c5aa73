"""The page of rollouts: what is on it, and in a real browser."""

import json
from pathlib import Path
from typing import Any

import pytest
from fake_run import write_run

from browser import CHROMIUM, look
from lmlab.runs.read import read_run
from lmlab.runs.report import write_report
from lmlab.runs.rollouts import MOST, opposed, write_rollout_page


def record(step: int, right: int = 3) -> dict[str, Any]:
    """A rollout of two prompts with four responses each, some right."""

    def response(answer: float) -> dict[str, Any]:
        return {
            "reward": answer,
            "format": 1.0,
            "answer": answer,
            "complete": True,
            "tokens": ["<b>", "4", "\u202e", "\n"],
            "advantage": [2 * answer - 1] * 4,
            "entropy": [0.5, 1.0, 2.0, 0.25],
        }

    responses = [response(float(i < right)) for i in range(8)]
    return {
        "step": step,
        "rollout": step,
        "responses": 8,
        "reward": right / 8,
        "answer": right / 8,
        "length": 4.0,
        "complete": 1.0,
        "counts": {"1,1": right, "1,0": 8 - right},
        "groups": [
            {"prompt": f"{i}+<script>=", "truth": "4", "responses": responses[4 * i : 4 * i + 4]}
            for i in range(2)
        ],
    }


def write_rollouts(run_dir: Path, count: int, torn: bool = False) -> Path:
    lines = [json.dumps(record(step, right=min(8, step))) for step in range(count)]
    text = "".join(f"{line}\n" for line in lines) + (lines[0][:40] if torn else "")
    (run_dir / "rollouts.jsonl").write_text(text)
    return run_dir


def test_a_run_without_rollouts_has_no_page(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path)
    write_report(run_dir)
    assert not (run_dir / "rollouts.html").exists()
    assert "rollouts.html" not in (run_dir / "report.html").read_text()


def test_the_report_links_to_the_page(tmp_path: Path) -> None:
    run_dir = write_rollouts(write_run(tmp_path), 5, torn=True)
    write_report(run_dir)
    assert 'href="rollouts.html"' in (run_dir / "report.html").read_text()
    page = (run_dir / "rollouts.html").read_text()
    assert "5 of 5 recorded rollouts" in page
    assert "+<script>=" not in page
    assert "\u202e" not in page


def test_of_many_rollouts_some_are_shown(tmp_path: Path) -> None:
    run_dir = write_rollouts(write_run(tmp_path), MOST + 50)
    path = write_rollout_page(read_run(run_dir))
    assert path is not None
    assert f"{MOST} of {MOST + 50} recorded rollouts" in path.read_text()


def rows(rewards: list[float], accuracies: list[float]) -> str:
    lines = [{"step": i, "train/reward": reward} for i, reward in enumerate(rewards)]
    lines += [{"step": i, "val/accuracy": accuracy} for i, accuracy in enumerate(accuracies)]
    return "".join(json.dumps(line) + "\n" for line in lines)


@pytest.mark.parametrize(
    ("rewards", "accuracies", "notable"),
    [
        ([0.1, 0.2, 0.8, 0.9, 0.9], [0.5, 0.2], True),
        ([0.1, 0.2, 0.8, 0.9, 0.9], [0.5, 0.6], False),
        ([0.9, 0.8, 0.2, 0.1, 0.1], [0.5, 0.2], False),
        ([0.1, 0.9], [0.5], False),
        ([], [], False),
    ],
)
def test_a_reward_that_rises_while_accuracy_falls(
    rewards: list[float], accuracies: list[float], notable: bool, tmp_path: Path
) -> None:
    (tmp_path / "metrics.jsonl").write_text(rows(rewards, accuracies))
    found = opposed(read_run(tmp_path))
    assert (found is not None) == notable
    if found is not None:
        assert found.reward == (0.1, 0.9)
        assert found.accuracy == (0.5, 0.2)


PROBE = """
<script>
(async () => {
  const all = (selector) => Array.from(document.querySelectorAll(selector));
  const wait = () => new Promise((resolve) => setTimeout(resolve, 300));
  while (!document.body.dataset.drawn) await wait();
  const form = document.getElementById("controls");
  const change = async (act) => {
    act();
    form.dispatchEvent(new Event("input", { bubbles: true }));
    await wait();
  };
  const look = () => ({
    groups: all(".group h3").map((h) => h.firstChild.textContent),
    responses: all(".response").length,
    rewards: all(".response .mark b").map((b) => b.textContent),
    tokens: all(".response .text")[0]?.textContent,
    colour: all(".response .text span")[0]?.style.background,
    table: all("#table td").map((cell) => cell.textContent),
    step: form.elements.step.textContent,
    charts: all(".chart .main-svg:first-child").length,
  });
  const seen = { first: look() };
  seen.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  seen.problem = document.getElementById("problem").hidden === false;
  await change(() => { form.elements.colour.value = "entropy"; });
  seen.entropy = look();
  await change(() => { form.elements.rollout.value = 2; form.elements.show.value = "right"; });
  seen.right = look();
  await change(() => { form.elements.show.value = "all"; form.elements.sorted.checked = true; });
  seen.sorted = look();
  await change(() => { form.elements.rollout.value = 0; form.elements.show.value = "right"; });
  seen.none = look();
  parent.postMessage(JSON.stringify(seen), "*");
})();
</script>
"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
@pytest.mark.parametrize("width", [1200, 360])
def test_responses_are_browsed(tmp_path: Path, width: int) -> None:
    run_dir = write_rollouts(write_run(tmp_path), 5)
    path = write_rollout_page(read_run(run_dir))
    assert path is not None
    seen = look(path, PROBE, width)
    first = seen["first"]
    assert first["charts"] == 2
    assert first["groups"] == ["0+<script>=", "1+<script>="]
    assert first["responses"] == 8
    assert first["step"].startswith("4 (reward 0.500")
    assert first["table"] == ["1", "1", "4", "50.0 %", "1", "0", "4", "50.0 %"]
    assert first["tokens"] == "<b>4\\u202e\u21b5\n"
    assert "--good" in first["colour"]
    assert "--train" in seen["entropy"]["colour"]
    assert seen["right"]["rewards"] == ["1", "1"]
    assert seen["right"]["step"].startswith("2 ")
    assert seen["sorted"]["rewards"] == ["1", "1", *["0"] * 6]
    assert seen["none"]["responses"] == 0
