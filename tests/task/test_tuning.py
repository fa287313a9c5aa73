"""Supervised fine-tuning and preferences as tasks."""

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from processes import finish, start

import lmlab
from lmlab.alignment.batches import PreferencePairs
from lmlab.alignment.problems.problem import Problem
from lmlab.alignment.rewards import Reward
from lmlab.alignment.templates import CHATML, PLAIN
from lmlab.cli import main as command
from lmlab.config import RunConfig
from lmlab.errors import ConfigError, UserError
from lmlab.evaluation.problems import _Answer, _preferences
from lmlab.runs.run import NullRun
from lmlab.task import run as train
from lmlab.task.dpo import DPO, Reference
from lmlab.task.sft import SFT
from lmlab.training.checkpoint import read_checkpoint
from lmlab.training.distributed import DistributedContext
from lmlab.training.runtime import Runtime
from tests_support import TINY, composed

OWN = tuple(text for text in TINY if not re.search("data=|sample|eval_windows", text))
SKIPPED = re.compile("second|memory|mfu|matmul|time")


def rows(run: Path) -> list[dict[str, Any]]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(x).items() if not SKIPPED.search(k)} for x in lines]


def write(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


@pytest.fixture(scope="module")
def sums(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lines = [
        {"prompt": f"{a}+{b}=", "completion": str(a + b)} for a in range(12) for b in range(12)
    ]
    return write(tmp_path_factory.mktemp("sums") / "sums.jsonl", lines)


@pytest.fixture(scope="module")
def talks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lines = [
        {
            "messages": [
                {"role": "user", "content": f"say {i}"},
                {"role": "assistant", "content": str(i)},
            ]
        }
        for i in range(60)
    ]
    return write(tmp_path_factory.mktemp("talks") / "talks.jsonl", lines)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lines = [
        {"prompt": f"{a}+{b}=", "chosen": str(a + b), "rejected": "no"}
        for a in range(10)
        for b in range(10)
    ]
    return write(tmp_path_factory.mktemp("pairs") / "pairs.jsonl", lines)


def configured(task: str, path: Path, *overrides: str) -> RunConfig:
    return composed(*arguments(task, path, *overrides))


def arguments(task: str, path: Path, *overrides: str) -> list[str]:
    """Return a command line; a run that starts from another one takes its tokenizer."""
    own = ["optimizer=adamw", "lr=3e-3", f"task={task}", f"task.examples.paths=['{path}']"]
    inherits = any(override.startswith("init_from=") for override in overrides)
    given = [text for text in OWN if not (inherits and text == "tokenizer=byte")]
    return [*given, *own, *overrides]


@pytest.fixture(scope="module")
def tuned(sums: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 12 steps on sums."""
    run = tmp_path_factory.mktemp("tuned") / "run"
    train(configured("sft", sums, "task.packing=true", "trainer.keep_checkpoints=10"), run)
    return run


def test_it_learns_and_shows_samples(tuned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = json.loads((tuned / "result.json").read_text())
    assert result["status"] == "finished"
    losses = [row["val/loss"] for row in rows(tuned) if "val/loss" in row]
    assert losses[-1] < losses[0] < math.log(257) + 0.5
    assert "train/entropy" in rows(tuned)[-1]
    assert re.search(r"=== step 12 ===\n\d+\+\d+=", (tuned / "samples.txt").read_text())
    assert command(["report", str(tuned)]) == 0
    assert command(["runs", str(tuned.parent)]) == 0
    assert lmlab.load(tuned).tokenizer.chat_template is None  # no conversations were read


def test_what_is_said_of_tokens_is_what_is_trained_on(
    sums: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = [text for text in arguments("sft", sums) if "budget" not in text]
    packed = ["task.packing=true", "budget=tokens", "budget.tokens=1000"]
    train(composed(*own, *packed), tmp_path / "packed")
    result = json.loads((tmp_path / "packed" / "result.json").read_text())
    assert (result["steps"], result["tokens"]) == (7, 7 * 4 * 32)
    assert "; 7 steps, 896 tokens, " in capsys.readouterr().err
    train(composed(*own, "budget.steps=7"), tmp_path / "padded")
    result = json.loads((tmp_path / "padded" / "result.json").read_text())
    assert 0 < result["tokens"] < 896
    assert "; 7 steps; cpu" in capsys.readouterr().err
    assert command(["account", *own, "budget.steps=7"]) == 0
    assert "training on" not in capsys.readouterr().out
    assert command(["account", "--json", *own, "budget.steps=7"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["tokens"], shown["training_seconds"]) == (None, None)


def test_a_run_that_diverges_is_a_result(sums: Path, tmp_path: Path) -> None:
    steep = ("optimizer=sgd", "lr=1e25", "schedule=constant", "schedule.warmup=0")
    bounds = ("trainer.eval_every=1", "trainer.max_grad_norm=null")
    train(configured("sft", sums, *steep, *bounds), tmp_path / "run")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["status"], result["steps"], result["val_loss"]) == ("diverged", 1, None)


@pytest.mark.parametrize("task", ["sft", "dpo"])
def test_a_killed_run_continues_bit_for_bit(
    task: str, tuned: Path, pairs: Path, tmp_path: Path
) -> None:
    if task == "sft":
        whole = tuned
    else:
        whole = tmp_path / "whole"
        train(configured("dpo", pairs, f"init_from='{tuned}'", "trainer.keep_checkpoints=9"), whole)
    run = tmp_path / "killed"
    shutil.copytree(whole, run)
    (run / "result.json").unlink()
    for step in (9, 12):
        (run / "checkpoints" / f"step_{step:08d}.pt").unlink()
    train(composed(f"resume='{run}'"), run)
    assert rows(run) == rows(whole)
    weights = [
        read_checkpoint(folder / "checkpoints" / "step_00000012.pt")["model"]
        for folder in (run, whole)
    ]
    for name, weight in weights[0].items():
        assert torch.equal(weight, weights[1][name])
    fingerprints = [json.loads((x / "result.json").read_text()) for x in (run, whole)]
    assert len({result["config_fingerprint"] for result in fingerprints}) == 1
    moved = run.rename(tmp_path / "moved")  # after it has read its own copy of the tokenizer
    (moved / "result.json").unlink()
    train(composed(f"resume='{moved}'"), moved)
    assert rows(moved) == rows(whole)


def test_the_result_does_not_depend_on_micro_batches(
    sums: Path, tuned: Path, tmp_path: Path
) -> None:
    config = configured("sft", sums, "task.packing=true", "trainer.micro_batch_size=1")
    train(config, tmp_path / "run")
    for ours, theirs in zip(rows(tmp_path / "run"), rows(tuned), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["sft", "dpo"])
def test_two_processes_compute_what_one_does(
    task: str, sums: Path, pairs: Path, tuned: Path, tmp_path: Path
) -> None:
    path = {"sft": sums, "dpo": pairs}[task]
    own = arguments(
        task,
        path,
        f"init_from='{tuned}'" if task == "dpo" else "task.normalization=sequence",
        *("optimizer=sgd", "lr=0.1", "trainer.precision=fp32"),  # AdamW enlarges rounding
    )
    train(composed(*own), tmp_path / "one")
    done = finish(start(tmp_path, 2, *own, "parallel=ddp", f"hydra.run.dir='{tmp_path}/two'"))
    assert [code for code, *_ in done] == [0, 0], done
    for ours, theirs in zip(rows(tmp_path / "two"), rows(tmp_path / "one"), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-6)


def test_a_template_and_its_tokens_are_kept(talks: Path, tuned: Path, tmp_path: Path) -> None:
    """New rows of the embedding are the mean of the others."""
    run = tmp_path / "run"
    train(configured("sft", talks, f"init_from='{tuned}'", "lr=1e-9", "budget.steps=1"), run)
    before, after = lmlab.load(tuned), lmlab.load(run)
    assert after.tokenizer.chat_template == CHATML
    assert after.tokenizer.vocab_size == before.tokenizer.vocab_size + 2
    for name in ("token_embedding", "lm_head"):
        old, new = (getattr(x.model, name).weight.detach() for x in (before, after))
        torch.testing.assert_close(new[: len(old)], old, atol=1e-6, rtol=0)
        mean = old.mean(dim=0)
        torch.testing.assert_close(new[len(old) :], mean.expand(2, -1), atol=1e-6, rtol=0)
    assert "<|im_start|>user\nsay" in (run / "samples.txt").read_text()
    # another one on top has the template already, and may change it
    again = tmp_path / "again"
    train(configured("sft", talks, f"init_from='{run}'", "budget.steps=1"), again)
    assert lmlab.load(again).tokenizer.vocab_size == after.tokenizer.vocab_size
    other = tmp_path / "other"
    train(
        configured("sft", talks, f"init_from='{run}'", "task.template=plain", "budget.steps=1"),
        other,
    )
    assert lmlab.load(other).tokenizer.chat_template == PLAIN


def test_new_tokens_do_not_continue_an_optimizer(talks: Path, tuned: Path, tmp_path: Path) -> None:
    config = configured(
        "sft", talks, f"init_from='{tuned}'", "init_optimizer=true", "budget.steps=20"
    )
    with pytest.raises(
        ConfigError, match="the tokenizer has 2 special tokens more than that of init_from"
    ):
        train(config, tmp_path / "run")


def test_preferences_are_learnt(pairs: Path, tuned: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(configured("dpo", pairs, f"init_from='{tuned}'", "task.beta=1.0", "lr=1e-3"), run)
    first, *_, last = [row for row in rows(run) if "val/loss" in row]
    assert last["val/loss"] < first["val/loss"]
    assert last["val/accuracy"] == 1.0
    assert last["val/margin"] > first["val/margin"]
    held_out = json.loads((run / "data.json").read_text())["held_out_examples"]
    known = np.load(run / "reference_log_probs.npy")
    assert known.shape == (100, 2)
    assert 0 < held_out < 100
    # those of the model it started from
    reference = lmlab.load(tuned)
    ids = torch.tensor([reference.tokenizer.encode("0+0=0<|endoftext|>")])
    log_p = torch.log_softmax(reference.model(ids[:, :-1]), dim=-1)[0]
    expected = log_p[range(3, 5), ids[0, 4:]].sum().item()
    assert np.abs(known[:, 0] - expected).min() < 1e-4
    assert command(["report", str(run)]) == 0


def test_preferences_are_compared_without_dropout(pairs: Path, sums: Path, tmp_path: Path) -> None:
    """A model that was trained with it goes on without it."""
    parent = tmp_path / "parent"
    train(configured("sft", sums, "model.dropout=0.1", "budget.steps=1"), parent)
    options = (f"init_from='{parent}'", "budget.steps=1")
    with pytest.raises(ConfigError, match=r"got 0\.1; set model\.dropout=0"):
        train(configured("dpo", pairs, *options), tmp_path / "run")
    train(configured("dpo", pairs, *options, "model.dropout=0"), tmp_path / "run")
    first, *_ = rows(tmp_path / "run")
    assert first["val/loss"] == pytest.approx(math.log(2))


def test_a_lost_reference_is_said(pairs: Path, tuned: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(configured("dpo", pairs, f"init_from='{tuned}'", "task.loss=ipo"), run)
    (run / "result.json").unlink()
    (run / "checkpoints" / "step_00000012.pt").unlink()
    (run / "reference_log_probs.npy").unlink()
    with pytest.raises(UserError, match=r"reference_log_probs\.npy is missing, and the model has"):
        train(composed(f"resume='{run}'"), run)


@pytest.mark.parametrize(
    ("lines", "overrides", "message"),
    [
        ([{"a": i} for i in range(50)], [], r"bad\.jsonl:\d+: has neither messages"),
        (
            [{"prompt": str(i), "completion": ""} for i in range(50)],
            [],
            r"bad\.jsonl:\d+: completion is empty",
        ),
        (
            [{"prompt": "a" * 40, "completion": "b"}] * 50,
            ["task.examples.validation_fraction=0.5"],
            "none is left to",
        ),
        (
            [{"prompt": f"{i}", "completion": "b" * 40} for i in range(50)],
            [],
            r"model\.context_length=32; shorten it, or set task\.examples\.too_long",
        ),
        (
            [{"prompt": f"{i}" * 40, "completion": "b"} for i in range(50)],
            ["task.examples.too_long=truncate"],
            r"no example fits into model\.context_length=32",
        ),
        ([{"prompt": "a", "completion": "b"}], ["tokenizer=bpe_4k"], "trained on a corpus"),
        (
            [{"prompt": str(i), "completion": "b"} for i in range(50)],
            ["task.template=none.jinja"],
            "and no file",
        ),
        (
            [{"prompt": "a", "completion": "b"}],
            ["task.packing=true", "model/attention=linear"],
            "linear attention carries its state across",
        ),
    ],
)
def test_bad_input_is_one_line(
    lines: list[dict[str, Any]], overrides: list[str], message: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "bad.jsonl", lines)
    with pytest.raises(UserError, match=message) as error:
        train(configured("sft", path, *overrides), tmp_path / "run")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["task.normalization=constant"], "constant goes with normalization=constant"),
        (["task.constant=2"], "constant goes with normalization=constant"),
        (["task.examples.prompt_template=x"], r"prompt_template': .*lacks {prompt}"),
        (["task.examples.too_long=cut"], r"'task\.examples\.too_long': 'cut' is not one of"),
    ],
)
def test_bad_configurations(overrides: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        configured("sft", tmp_path / "a.jsonl", *overrides)


def test_a_template_that_no_example_reads_is_said(
    sums: Path, talks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    around, chat = "task.examples.prompt_template='Q: {prompt}'", "task.template=plain"
    for path, unread, read in ((sums, chat, around), (talks, around, chat)):
        train(configured("sft", path, "budget.steps=1", unread), tmp_path / f"{path.stem}_unread")
        assert f"{unread.partition('=')[0]} is not read" in capsys.readouterr().err
        train(configured("sft", path, "budget.steps=1", read), tmp_path / f"{path.stem}_read")
        assert "is not read" not in capsys.readouterr().err


def test_columns_are_renamed_by_entries_that_are_added(sums: Path) -> None:
    names = "task.examples.rename={question: prompt, answer: completion}"
    task = configured("sft", sums, f"+{names}").task
    assert task.examples.rename == {"question": "prompt", "answer": "completion"}
    with pytest.raises(UserError, match=r"as in \+task\.examples\.rename\.question=VALUE"):
        configured("sft", sums, names)


def test_examples_that_are_held_out_are_not_trained_on(
    sums: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [json.loads(line) for line in sums.read_text().splitlines()]
    lines[7] = dict(reversed(lines[7].items()))  # its columns in another order
    held_out = write(tmp_path / "held_out.jsonl", lines[:10])
    train(
        configured("sft", sums, f"task.examples.validation_paths=['{held_out}']", "budget.steps=1"),
        tmp_path / "run",
    )
    record = json.loads((tmp_path / "run" / "data.json").read_text())
    assert (record["train_examples"], record["held_out_examples"]) == (134, 10)
    assert "10 of 144 examples are left out" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["texts", "conversations"])
@pytest.mark.parametrize("task", ["sft", "dpo"])
def test_a_prompt_is_held_out_with_all_its_rows(
    task: str, kind: str, tuned: Path, tmp_path: Path
) -> None:
    lines = []
    for i in range(120):
        prompt, replies = str(i // 4), {"chosen": f"{i}", "rejected": "no"}
        if kind == "conversations":
            turn = {"role": "user", "content": prompt}
            whole = {k: [turn, {"role": "assistant", "content": v}] for k, v in replies.items()}
            lines.append(whole if task == "dpo" else {"messages": whole["chosen"]})
        else:
            replies = replies if task == "dpo" else {"completion": f"{i}"}
            lines.append({"prompt": prompt, **replies})
    path = write(tmp_path / "rows.jsonl", lines)
    own = [
        "model.context_length=128",
        "task.examples.validation_fraction=0.3",
        "task.template=plain",
    ]
    built = (SFT if task == "sft" else DPO)(
        configured(task, path, *own, *([f"init_from={tuned}"] if task == "dpo" else [])),
        Runtime(torch.device("cpu")),
    )
    built.prepare(print)

    def prompts(items: list[Any]) -> set[bytes]:
        firsts = [item if task == "sft" else item[0] for item in items]
        return {bytes(first.ids[: first.learned.argmax()]) for first in firsts}

    assert len(prompts(built.train)) > 10
    assert len(prompts(built.held_out)) > 2
    assert not prompts(built.train) & prompts(built.held_out)


def test_pairs_that_truncation_makes_equal_are_left_out(
    tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = [
        {"prompt": f"{i}=", "chosen": "a" * 40 + "b", "rejected": "a" * 40 + "c"} for i in range(20)
    ]
    short = [{"prompt": f"{i}+", "chosen": "a" * 40, "rejected": "b" * 40} for i in range(80)]
    path = write(tmp_path / "pairs.jsonl", [*long, *short])
    start_from = (f"init_from={tuned}", "budget.steps=1")
    settings = configured("dpo", path, *start_from, "task.examples.too_long=truncate")
    train(settings, tmp_path / "run")
    record = json.loads((tmp_path / "run" / "data.json").read_text())
    assert record["train_examples"] + record["held_out_examples"] == 80
    said = capsys.readouterr().err
    found = re.findall(r"(\d+) of \d+ pairs are left out: .* equal within .* 32 tokens", said)
    assert sum(map(int, found)) == 20


def test_preferences_need_a_run_to_start_from(pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="task=dpo needs init_from=RUN: the reference is its mo"):
        train(configured("dpo", pairs), tmp_path / "run")
    with pytest.raises(UserError, match="no/run is not a run directory"):
        configured("dpo", pairs, "init_from=no/run")


def test_a_runs_answers_are_judged(
    sums: Path, tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [json.loads(line) for line in sums.read_text().splitlines()[:20]]
    lines = [{"question": line["prompt"], "answer": line["completion"]} for line in lines]
    problems, table = write(tmp_path / "problems.jsonl", lines), tmp_path / "table.json"
    asked = [
        *("evaluate", str(tuned), "--problems", str(problems), "--prompt-field", "question"),
        *("--max-new-tokens", "4", "--quiet"),
    ]
    judged = ["--reward", "arithmetic", "--samples", "4", "--pass-at", "1,4"]
    assert command([*asked, *judged, "--output", str(table)]) == 0
    (row,) = json.loads(table.read_text())["results"]
    assert row["problems"] == 20
    assert 0 <= row["greedy_accuracy_low"] <= row["greedy_accuracy"] <= row["greedy_accuracy_high"]
    assert row["pass_at_1"] <= row["pass_at_4"]
    counts = [value for key, value in row.items() if key.startswith("format_answer_")]
    assert sum(counts) == 20
    assert command([*asked, *judged]) == 0
    shown = capsys.readouterr().out
    assert "pass@4" in shown
    assert "(format, answer)" in shown
    for arguments, message in (
        ([], "--problems needs --reward"),
        (["--reward", "arithmetik"], "unknown reward 'arithmetik'"),
        (["--reward", "arithmetic", "--pass-at", "2"], "--pass-at 2 needs --samples 2 or more"),
        (["--reward", "arithmetic", "--max-new-tokens", "32"], "it needs 1 to 0 in the context of"),
        (["--reward", "arithmetic", "--answer-field", "x"], "needs a text in the field 'x'"),
        (["--reward", "arithmetic", "--stride", "2"], "--stride has no effect with --problems"),
        (["--reward", "arithmetic", "--preferences", "x"], "--preferences needs --samples 2"),
    ):
        assert command([*asked, *arguments]) == 1
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_a_runs_right_and_wrong_answers_are_preferences(
    sums: Path, tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [json.loads(line) for line in sums.read_text().splitlines()[:20]]
    asked = [{"prompt": line["prompt"], "answer": line["completion"]} for line in lines]
    problems, pairs = write(tmp_path / "problems.jsonl", asked), tmp_path / "pairs.jsonl"
    arguments = ["evaluate", str(tuned), "--problems", str(problems), "--max-new-tokens", "4"]
    arguments += ["--samples", "8", "--preferences", str(pairs), "--quiet", "--reward"]
    assert command([*arguments, "alignment.small_policies.even"]) == 0
    found = [json.loads(line) for line in pairs.read_text().splitlines()]
    assert f"{len(found)} pairs" in capsys.readouterr().err
    assert 0 < len(found) <= 20
    assert {pair["prompt"] for pair in found} <= {line["prompt"] for line in asked}
    for pair in found:
        assert sum(pair["chosen"].encode()) % 2 == 0
        assert sum(pair["rejected"].encode()) % 2 == 1
    assert command([*arguments, "alignment.bad_rewards.equal"]) == 1
    shown = capsys.readouterr()
    assert "greedy accuracy" in shown.out  # the report is there all the same
    (error,) = shown.err.splitlines()
    assert "no problem has a right and a wrong sample" in error


def refuse_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    def generated(*_: object) -> None:
        pytest.fail("an answer was generated")

    monkeypatch.setattr("lmlab.evaluation.problems.generate_responses", generated)


def test_preferences_that_cannot_be_written_are_refused_before_any_answer(
    sums: Path,
    tuned: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refuse_answers(monkeypatch)
    problems = write(tmp_path / "problems.jsonl", [{"prompt": "1+1=", "answer": "2"}])
    arguments = ["evaluate", str(tuned), "--problems", str(problems), "--max-new-tokens", "4"]
    arguments += ["--samples", "2", "--reward", "arithmetic", "--quiet"]
    assert command([*arguments, "--preferences", str(tmp_path)]) == 1
    (error,) = capsys.readouterr().err.splitlines()
    assert f"Is a directory: {tmp_path}" in error


def test_a_prompt_without_room_in_the_last_run_is_refused_before_any_answer(
    sums: Path,
    tuned: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    short = tmp_path / "short"
    train(configured("sft", sums, "model.context_length=12", "budget.steps=1"), short)
    capsys.readouterr()
    refuse_answers(monkeypatch)
    problems = write(tmp_path / "problems.jsonl", [{"prompt": "11+11=", "answer": "22"}])
    arguments = ["--problems", str(problems), "--reward", "arithmetic", "--max-new-tokens", "8"]
    assert command(["evaluate", str(tuned), str(short), *arguments, "--quiet"]) == 1
    (error,) = capsys.readouterr().err.splitlines()
    assert "has 6 tokens; with --max-new-tokens 8 it needs 1 to 4" in error


def test_answers_of_spaces_are_no_preferences() -> None:
    """Preference training refuses them."""
    wrong, right = Reward.of(False, False), Reward.of(True, True)
    answers = [("\n", wrong), ("58\n", right), (" ", right), ("57\n", wrong)]
    group = [_Answer(text, reward) for text, reward in answers]
    problem = Problem("12+46=", "58")
    assert list(_preferences([problem], [group])) == [("12+46=", "58\n", "57\n")]
    assert not list(_preferences([problem], [group[:3]]))


def test_the_reference_of_a_divided_model_has_each_pair_once(
    pairs: Path, tuned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processes that share one model evaluate the same pairs."""
    task = DPO(configured("dpo", pairs, f"init_from={tuned}"), Runtime(torch.device("cpu")))
    task.prepare(print)
    objective = task.build_objective(task.build_model())
    every = PreferencePairs([*task.train, *task.held_out], 32, None)
    alone = Reference(objective, NullRun(Path()), task.runtime, every, 8)._computed()
    assert len(alone) == len(every.pairs)
    monkeypatch.setattr(DistributedContext, "gather", lambda self, value: [value, value])
    both = Reference(objective, NullRun(Path()), task.runtime, every, 8)._computed()
    torch.testing.assert_close(both, alone)
