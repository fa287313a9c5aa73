"""Runs of the tasks that learn from their own responses."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import lmlab
from alignment.small_policies import GROUPS, MODEL, RUN, config
from lmlab.alignment.problems import open_problems
from lmlab.errors import ConfigError, UserError
from lmlab.task import run
from lmlab.task.rl_config import GRPOConfig
from tests_support import ROOT, composed

ODD = "13579"
SKIPPED = re.compile("second|memory|mfu|matmul|time")
TASKS = {
    "grpo": (),
    "single_step": ("trainer.batch_size=16",),
    "off_policy": ("task.epochs=2",),
    "expert_iteration": ("task.threshold=0.3", "task.rollout.min_new_tokens=2"),
    "ppo": ("task.epochs=2",),
}


def rows(directory: Path) -> list[dict[str, Any]]:
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(x).items() if not SKIPPED.search(k)} for x in lines]


def steps(directory: Path) -> list[dict[str, Any]]:
    return [row for row in rows(directory) if row["step"] > 0]


def task_of(name: str) -> str:
    return "grpo" if name in ("single_step", "off_policy") else name


def weights(directory: Path) -> dict[str, torch.Tensor]:
    path = (directory / "checkpoints" / "latest").resolve()
    return torch.load(path, weights_only=True)["model"]


@pytest.fixture(scope="module")
def whole_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    for name, overrides in TASKS.items():
        run(config(task_of(name), *overrides), folder / name)
    return {name: folder / name for name in TASKS}


@pytest.mark.parametrize("name", TASKS)
def test_it_trains_and_logs(name: str, whole_runs: dict[str, Path]) -> None:
    found = rows(whole_runs[name])
    assert {row["step"] for row in found} == set(range(7))
    found = steps(whole_runs[name])
    wanted = {"reward", "format", "answer", "length", "entropy", "clip_fraction"}
    assert wanted <= {key.removeprefix("train/") for key in found[0]}
    assert found[0]["train/engine_difference"] < 1e-4
    assert found[0]["grad_norm"] > 0
    assert "val/accuracy" in found[-1]
    result = json.loads((whole_runs[name] / "result.json").read_text())
    assert result["status"] == "finished"
    assert result["metric"] == "val_accuracy"
    lines = (whole_runs[name] / "rollouts.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    for record in records:
        assert sum(record["counts"].values()) == record["responses"] == 16
        assert len(record["groups"]) == 2
        for response in record["groups"][0]["responses"]:
            count = len(response["tokens"])
            assert count == len(response["advantage"]) == len(response["entropy"]) > 0
    # 16 responses are two batches of 8 an epoch
    counts = {"grpo": 3, "single_step": 6, "off_policy": 2, "ppo": 2}
    assert len(records) == counts.get(name, len(records))


@pytest.mark.parametrize("name", TASKS)
def test_killed_in_a_rollout_and_resumed_equals_undisturbed(
    name: str, whole_runs: dict[str, Path], tmp_path: Path
) -> None:
    """SIGKILL while the rollout of a step is being made: the same numbers, bit for bit."""
    directory = tmp_path / "run"
    overrides = [*RUN, *GROUPS, *TASKS[name]]
    script = tmp_path / "killed.py"
    script.write_text(
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from alignment import small_policies\n"
        "from lmlab.alignment import collecting\n"
        "from lmlab.task import run\n"
        "made = collecting.generate_responses\n"
        "calls = []\n"
        "def generate(*args, **options):\n"
        "    calls.append(1)\n"
        "    if len(calls) == 2:\n"
        "        made(*args, **options)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return made(*args, **options)\n"
        "collecting.generate_responses = generate\n"
        f"config = small_policies.config({task_of(name)!r}, *{TASKS[name]!r})\n"
        f"run(config, Path({str(directory)!r}))\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        env={"PYTHONPATH": str(ROOT / "tests"), "PATH": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == -9, done.stderr
    assert not (directory / "result.json").exists()
    run(composed(f"task={task_of(name)}", *overrides), directory)
    assert rows(directory) == rows(whole_runs[name])
    rollouts = "rollouts.jsonl"
    assert (directory / rollouts).read_text() == (whole_runs[name] / rollouts).read_text()
    ours, theirs = weights(directory), weights(whole_runs[name])
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_stopped_between_the_batches_of_a_rollout(
    whole_runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rollout in use is in the checkpoint: it is not made again with newer weights."""
    from lmlab.alignment.source import RolloutSource

    directory = tmp_path / "run"
    call = RolloutSource.__call__

    def stopping(self: RolloutSource, step: int) -> Any:
        if step == 3:
            raise KeyboardInterrupt
        return call(self, step)

    monkeypatch.setattr(RolloutSource, "__call__", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(config("grpo", *TASKS["off_policy"]), directory)
    monkeypatch.undo()
    run(config("grpo", *TASKS["off_policy"]), directory)
    assert rows(directory) == rows(whole_runs["off_policy"])


def test_a_run_with_values_starts_from_one_without_and_back(
    whole_runs: dict[str, Path], tmp_path: Path
) -> None:
    for name, parent in (("ppo", "grpo"), ("grpo", "ppo")):
        given = f"init_from={whole_runs[parent]}"
        child = composed(given, f"task={name}", *RUN[len(MODEL) :], *GROUPS, "budget.steps=2")
        run(child, tmp_path / name)
        assert ("value_head.weight" in weights(tmp_path / name)) == (name == "ppo")
    loaded = lmlab.load(whole_runs["ppo"])
    assert loaded.generate("1+1=", max_new_tokens=3).tokens


def test_another_task_takes_no_rollouts_of_its_parent(
    whole_runs: dict[str, Path], tmp_path: Path
) -> None:
    parent = whole_runs["off_policy"]
    for name, continues in (("grpo", True), ("expert_iteration", False)):
        kept = RUN[len(MODEL) :]
        own = [*GROUPS, "task.epochs=2"] if continues else [*TASKS["expert_iteration"]]
        given = (f"init_from={parent}", "init_optimizer=true", "budget.steps=7")
        child = composed(*given[:2], f"task={name}", *kept, *own, given[2])
        run(child, tmp_path / name)
        path = (tmp_path / name / "checkpoints" / "latest").resolve()
        before = torch.load((parent / "checkpoints" / "latest").resolve(), weights_only=True)
        after = torch.load(path, weights_only=True)
        counts = [state["source"][0]["rollouts"] for state in (before, after)]
        assert (counts[1] >= counts[0]) == continues
        assert continues or after["progress"]["best"] == rows(tmp_path / name)[-1]["val/accuracy"]


def test_a_reference_is_the_model_it_started_from(
    whole_runs: dict[str, Path], tmp_path: Path
) -> None:
    given = f"init_from={whole_runs['grpo']}"
    child = composed(given, "task=grpo", *RUN[len(MODEL) :], *GROUPS, "task.kl=0.1", "lr=1e-2")
    run(child, tmp_path / "run")
    found = steps(tmp_path / "run")
    assert found[0]["train/kl"] == pytest.approx(0, abs=1e-6)
    assert found[-1]["train/kl"] > 1e-5


def test_a_missing_reference_is_one_line(whole_runs: dict[str, Path], tmp_path: Path) -> None:
    from lmlab.task.reference import reference_model

    given = f"init_from={whole_runs['grpo']}"
    child = composed(given, "task=grpo", *RUN[len(MODEL) :], *GROUPS, "task.kl=0.1")
    gone = child.model_copy(update={"init_from": tmp_path / "step_00000001.pt"})
    with pytest.raises(UserError, match="does not exist, and the reference is its model"):
        reference_model(gone, lmlab.load(whole_runs["grpo"]).model)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("trainer.batch_size=6",), "16 responses is not divisible by trainer.batch_size=6"),
        (("task.kl=0.1",), "task.kl needs init_from=RUN"),
        (("task.rollout.samples=1",), "rollout.samples must be at least 2"),
        (("task.rollout.max_new_tokens=40",), "leaves no room for a prompt"),
        (("task.prompt_template=hello",), "lacks {prompt}"),
    ],
)
def test_bad_configurations_are_refused_at_load(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        config("grpo", *overrides)


def test_rows_beyond_the_tokenizer_are_in_both_parts_of_the_ratio(tmp_path: Path) -> None:
    """The engine alone leaves them out: 43 of 300 rows, each of which is as likely at first."""
    narrow = ("task.epochs=2", "budget.steps=1", "task.clip_low=0.01", "task.clip_high=0.01")
    run(config("grpo", "model.vocab_size=300", *narrow), tmp_path / "run")
    (step,) = steps(tmp_path / "run")
    assert step["train/clip_fraction"] == 0
    assert step["train/engine_difference"] == pytest.approx(math.log(300 / 257), rel=0.1)


@pytest.mark.parametrize("task", ["grpo", "ppo", "expert_iteration"])
def test_policies_are_compared_without_dropout(task: str, tmp_path: Path) -> None:
    """With it an unchanged policy would have ratios that are not 1, and be clipped."""
    dropout = ("model.dropout=0.1", "model.attention.dropout=0.2")
    given = config(task, *dropout, "budget.steps=1", *TASKS[task])
    if task == "expert_iteration":
        run(given, tmp_path / "run")
        return
    message = f"task={task} compares log-probabilities with those of a model without dropout, "
    mend = "got 0.1; set model.dropout=0 model.attention.dropout=0"
    with pytest.raises(ConfigError, match=re.escape(message + mend)):
        run(given, tmp_path / "run")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("task.rollout.max_new_tokens=29",), "prompts are longer than 3 tokens"),
        (("tokenizer=bpe_4k",), "a BPE vocabulary is trained on a corpus"),
        (("task.reward=nothing",), "unknown reward 'nothing'"),
        (("task.threshold=9",), "no response of the last 20 rollouts was kept"),
    ],
)
def test_bad_input_is_one_line(overrides: tuple[str, ...], message: str, tmp_path: Path) -> None:
    name = "expert_iteration" if "threshold" in overrides[0] else "grpo"
    with pytest.raises(UserError, match=re.escape(message)):
        run(config(name, *overrides), tmp_path / "run")
    assert not (tmp_path / "run" / "result.json").exists()


@pytest.mark.parametrize(
    ("reward", "overrides", "message"),
    [
        ("raising", (), "responses failed (ValueError: no reward today) and counts as zero"),
        ("not_finite", (), "responses failed (ValueError: the reward's total is nan"),
        ("hanging", ("task.reward_deadline=1",), "responses failed (no reward within 1 s)"),
    ],
)
def test_rewards_that_fail_are_counted_and_the_run_goes_on(
    reward: str,
    overrides: tuple[str, ...],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    own = (f"task.reward=alignment.bad_rewards.{reward}", "task.rollout.samples=2")
    every = ("task.rollout.prompts=46", "trainer.batch_size=92", "budget.steps=2")
    settings = config("grpo", *own, *every, *overrides)
    run(settings, tmp_path / "run")
    assert message in capsys.readouterr().err
    assert isinstance(settings.task, GRPOConfig)
    held_out = open_problems(settings.task.problems, print).held_out
    fails = {"3+4="} if reward == "hanging" else {p.prompt for p in held_out if p.prompt[0] in ODD}
    failing = sum(problem.prompt in fails for problem in held_out)
    evaluations = [row for row in rows(tmp_path / "run") if "val/accuracy" in row]
    assert len(evaluations) > 1  # each counts its own, and not those of the rollouts
    assert [row.get("val/reward_failures", 0) for row in evaluations] == [failing] * len(
        evaluations
    )


def test_equal_rewards_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(config("grpo", "task.reward=alignment.bad_rewards.equal"), tmp_path / "run")
    errors = capsys.readouterr().err
    assert "the responses to each of its 4 prompts have equal rewards" in errors
    assert steps(tmp_path / "run")[0]["grad_norm"] == pytest.approx(0, abs=1e-7)


def test_two_processes_learn_what_one_does(whole_runs: dict[str, Path], tmp_path: Path) -> None:
    """The rollouts are those of one process; only the order of sums differs."""
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"),
        *(str(ROOT / "train.py"), "task=grpo", *RUN, *GROUPS, "parallel=ddp"),
        f"hydra.run.dir={tmp_path / 'run'}",
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "tests")}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    first = [json.loads(x) for x in (tmp_path / "run" / "rollouts.jsonl").read_text().splitlines()]
    other = (whole_runs["grpo"] / "rollouts.jsonl").read_text().splitlines()
    assert first[0]["counts"] == json.loads(other[0])["counts"]
    for ours, theirs in zip(steps(tmp_path / "run"), steps(whole_runs["grpo"]), strict=True):
        for key in ("train/reward", "train/entropy", "grad_norm", "train/length"):
            assert ours[key] == pytest.approx(theirs[key], rel=1e-3), key


def test_a_compiled_run_has_the_losses_of_an_eager_one(tmp_path: Path) -> None:
    small = ("model.num_layers=1", "budget.steps=3", "trainer.batch_size=16")
    for name in ("true", "false"):
        run(config("grpo", *small, f"trainer.compile={name}"), tmp_path / name)
    for ours, theirs in zip(steps(tmp_path / "true"), steps(tmp_path / "false"), strict=True):
        for key in ("train/loss", "train/entropy", "train/reward", "grad_norm"):
            assert ours[key] == pytest.approx(theirs[key], rel=1e-5, abs=1e-5), key


def test_each_run_of_a_process_is_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch stops compiling after some models, and the models of a sweep in one process differ."""
    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, backend: compiler(model, backend="eager"))
    small = (
        "model.num_layers=1",
        "budget.steps=1",
        "trainer.batch_size=16",
        "trainer.compile=true",
    )
    # monkeypatch would leave torch's configuration without the key.
    with torch._dynamo.config.patch(recompile_limit=4, fail_on_recompile_limit_hit=True):
        for width in (16, 24, 32, 40, 48):
            run(config("grpo", *small, f"model.d_model={width}"), tmp_path / str(width))


def test_choices_of_an_experiment_win_over_those_of_the_parent(
    whole_runs: dict[str, Path], tmp_path: Path
) -> None:
    given = f"init_from={whole_runs['expert_iteration']}"
    child = composed("experiment=alignment/countdown", given)
    assert (child.task.kind, child.optimizer.kind, child.schedule.kind) == (
        "grpo",
        "adamw",
        "constant",
    )
    assert child.model.d_model == 32  # the parent's
    assert child.tokenizer.kind == "saved"
    for problems in ("addition", "countdown"):
        control = composed(f"experiment=alignment/{problems}_control", given)
        assert control.task.kind == "sft"
        assert str(control.task.examples.paths[0]) == f"data/{problems}/demonstrations.jsonl"
    swept = composed("sweep=alignment/lr", given)
    assert swept.task.kind == "grpo"


def test_gsm8k_and_its_control_run_on_a_small_model(
    whole_runs: dict[str, Path], tmp_path: Path
) -> None:
    files = [tmp_path / name for name in ("train.jsonl", "test.jsonl")]
    for number, path in enumerate(files):
        problems = [
            {"question": f"What is {n} + 1?", "answer": f"{n} + 1 = {n + 1}\n#### {n + 1}"}
            for n in range(8 * number, 8 * number + 8)
        ]
        path.write_text("".join(json.dumps(problem) + "\n" for problem in problems))
    given = (
        f"init_from={whole_runs['expert_iteration']}",
        "budget.steps=2",
        "trainer.batch_size=8",
    )
    policy = composed(
        "experiment=alignment/gsm8k",
        *given,
        f"task.problems.path={files[0]}",
        f"task.problems.validation_path={files[1]}",
        *("task.rollout.prompts=4", "task.rollout.samples=2", "task.rollout.max_new_tokens=12"),
    )
    run(policy, tmp_path / "policy")
    control = composed(
        "experiment=alignment/gsm8k_control",
        *given,
        f"task.examples.paths=[{files[0]}]",
        f"task.examples.validation_paths=[{files[1]}]",
    )
    run(control, tmp_path / "control")
    assert policy.task.prompt_template == control.task.examples.prompt_template
    for name, metric in (("policy", "val_accuracy"), ("control", "val_loss")):
        result = json.loads((tmp_path / name / "result.json").read_text())
        assert (result["status"], result["steps"], result["metric"]) == ("finished", 2, metric)
    (first, *_) = (tmp_path / "policy" / "rollouts.jsonl").read_text().splitlines()
    assert "Problem: What is" in json.loads(first)["groups"][0]["prompt"]
