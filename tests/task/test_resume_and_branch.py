"""resume= and init_from=: what a run may change when it continues, and how another one branches."""

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import lmlab
from lmlab.cli import main as command
from lmlab.errors import ConfigError, UserError
from lmlab.task import run as train
from tests_support import composed

SKIPPED = re.compile("second|memory|mfu|matmul|time")


def rows(run: Path) -> list[dict[str, Any]]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(x).items() if not SKIPPED.search(k)} for x in lines]


def read(run: Path, name: str) -> dict[str, Any]:
    return json.loads((run / name).read_text())


@pytest.fixture(scope="module")
def parent(tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 12 steps."""
    run = tmp_path_factory.mktemp("parent") / "a run"
    train(composed(*tiny, "trainer.keep_checkpoints=10", "seed=3"), run)
    return run


def quoted(path: Path) -> str:
    return f"'{path}'"


@pytest.fixture
def unfinished(parent: Path, tmp_path: Path) -> Path:
    """A copy of the parent that stopped after step 6."""
    run = tmp_path / "unfinished"
    shutil.copytree(parent, run)
    (run / "result.json").unlink()
    for step in (9, 12):
        (run / "checkpoints" / f"step_{step:08d}.pt").unlink()
    return run


def test_resume_changes_how_a_run_is_computed(parent: Path, unfinished: Path) -> None:
    config = composed(
        f"resume={quoted(unfinished)}",
        "trainer.micro_batch_size=2",
        "trainer.checkpoint_every=1",
        "trainer.keep_checkpoints=2",
        "trainer.num_threads=1",
    )
    assert config.seed == 3
    train(config, unfinished)
    assert read(unfinished, "result.json")["val_loss"] == pytest.approx(
        read(parent, "result.json")["val_loss"], rel=1e-5
    )
    noted = read(unfinished, "environment.json")["resumed"][0]["changed_settings"]
    assert noted == {
        "trainer.micro_batch_size": [None, 2],
        "trainer.checkpoint_every": [3, 1],
        "trainer.keep_checkpoints": [10, 2],
        "trainer.num_threads": [None, 1],
    }


def test_a_group_may_change_when_it_says_how_a_run_is_shown(unfinished: Path) -> None:
    config = composed(f"resume={quoted(unfinished)}", "logger=wandb", "trainer.profile_steps=2")
    assert (config.logger.kind, config.trainer.profile_steps) == ("wandb", 2)
    assert (config.seed, config.budget.steps, config.tokenizer.kind) == (3, 12, "byte")


@pytest.mark.parametrize("change", ["lr=0.02", "trainer.batch_size=8", "model=small", "seed=0"])
def test_resume_refuses_what_changes_the_result(unfinished: Path, change: str) -> None:
    config = composed(f"resume={quoted(unfinished)}", change)
    with pytest.raises(UserError, match="resume it without these keys, or branch") as error:
        train(config, unfinished)
    key = change.split("=")[0]
    assert key in str(error.value)
    assert f"init_from={unfinished}" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_finished_run_with_more_steps_names_both_ways(parent: Path) -> None:
    with pytest.raises(UserError, match="finished after 12 steps") as error:
        train(composed(f"resume={quoted(parent)}", "budget.steps=20"), parent)
    assert "init_optimizer=true" in str(error.value)
    assert str(error.value).count("init_from=") == 2


def test_resume_goes_back_to_a_checkpoint(parent: Path, tmp_path: Path) -> None:
    run = tmp_path / "back"
    shutil.copytree(parent, run)
    (run / "result.json").unlink()
    checkpoint = run / "checkpoints" / "step_00000006.pt"
    config = composed(f"resume={quoted(checkpoint)}")
    train(config, run)
    assert rows(run) == rows(parent)
    assert read(run, "result.json")["val_loss"] == read(parent, "result.json")["val_loss"]
    assert (run / "checkpoints" / "step_00000009.superseded").exists()


def test_a_run_keeps_its_tokenizer_and_what_its_data_were(parent: Path) -> None:
    assert lmlab.load(parent).tokenizer.vocab_size == 257
    data = read(parent, "data.json")
    assert data["train_bytes"] > data["val_bytes"] > 0


def test_other_data_are_refused(unfinished: Path, corpus: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text(corpus.read_text().replace("dog", "fox"))
    text = (unfinished / "config.yaml").read_text().replace(str(corpus), str(other))
    (unfinished / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=r"its data are no longer those it began with .*train_hash"):
        train(composed(f"resume={quoted(unfinished)}"), unfinished)


def test_init_from_takes_weights_and_configuration(
    parent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = composed(f"init_from={quoted(parent)}", "lr=1e-3", "budget.steps=4", "name=tuned")
    assert (config.lr, config.optimizer.lr, config.seed, config.name) == (1e-3, 1e-3, 3, "tuned")
    assert config.tokenizer.kind == "saved"
    child = tmp_path / "child"
    train(config, child)
    assert rows(child)[0]["step"] == 0
    last = [row for row in rows(parent) if "val/loss" in row][-1]
    assert rows(child)[0]["val/loss"] == last["val/loss"]
    lineage = read(child, "lineage.json")
    assert lineage == {
        "parent": str(parent),
        "step": 12,
        "fingerprint": read(parent, "result.json")["config_fingerprint"],
        "optimizer": False,
    }
    capsys.readouterr()
    assert command(["runs", str(child)]) == 0
    assert "a run at step 12" in capsys.readouterr().out
    assert "a run at step 12" in (child / "report.html").read_text()
    assert config.fingerprint() != read(parent, "result.json")["config_fingerprint"]
    # a child is whole without its parent, and without the data cache
    moved = parent.with_name("elsewhere")
    parent.rename(moved)
    try:
        loaded = lmlab.load(child)
        assert loaded.step == 4
        (child / "result.json").unlink()
        (child / "checkpoints" / "step_00000004.pt").unlink()
        train(composed(f"resume={quoted(child)}"), child)
    finally:
        moved.rename(parent)


@pytest.mark.parametrize("schedule", ["wsd", "constant"])
def test_a_branch_equals_the_same_schedule_run_at_once(
    tiny: list[str], tmp_path: Path, schedule: str
) -> None:
    """The decay of a WSD schedule, branched off the stable part of a longer run."""
    options = [*tiny, f"schedule={schedule}", "trainer.log_every=1", "model.dropout=0.1"]
    options += ["schedule.warmup=2", *(["schedule.decay=4"] if schedule == "wsd" else [])]
    long, branch, whole = tmp_path / "long", tmp_path / "branch", tmp_path / "whole"
    train(composed(*options, "budget.steps=20", "trainer.keep_checkpoints=10"), long)
    checkpoint = long / "checkpoints" / "step_00000006.pt"
    config = composed(f"init_from={checkpoint}", "init_optimizer=true", "budget.steps=10")
    train(config, branch)
    train(composed(*options, "budget.steps=10"), whole)
    assert [row for row in rows(branch) if row["step"] > 6] == [
        row for row in rows(whole) if row["step"] > 6
    ]
    weights = [
        torch.load(run / "checkpoints" / "step_00000010.pt", weights_only=True)["model"]
        for run in (branch, whole)
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])
    assert read(branch, "result.json")["tokens"] == read(whole, "result.json")["tokens"]
    assert rows(branch)[0]["step"] == 6


@pytest.mark.parametrize("change", ["data", "windows", "none"])
def test_the_best_of_a_parent_counts_for_the_same_text_alone(
    change: str, parent: Path, corpus: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.txt"
    other.write_text(corpus.read_text().translate(str.maketrans("aeiou", "jqxzk")))
    changes = {"data": f"data.paths=['{other}']", "windows": "trainer.eval_windows=3"}
    config = composed(
        f"init_from={quoted(parent)}",
        *("init_optimizer=true", "budget.steps=14", "lr=1e-9"),
        *([changes[change]] if change in changes else []),
    )
    child = tmp_path / "run"
    train(config, child)
    path = child / "checkpoints" / "step_00000014.pt"
    progress = torch.load(path, weights_only=True)["progress"]
    best, lowest = (
        min(row[name] for row in rows(child) if name in row) for name in ("val/loss", "train/loss")
    )
    before = torch.load(parent / "checkpoints" / "step_00000012.pt", weights_only=True)["progress"]
    if change == "none":
        best, lowest = min(best, before["best"]), min(lowest, before["lowest"])
    assert (progress["best"], progress["lowest"]) == (best, lowest)
    assert read(child, "result.json")["best_val_loss"] == best
    if change == "data":
        assert best > before["best"] + 0.1


def test_hyperparameters_are_those_of_the_branch(parent: Path, tmp_path: Path) -> None:
    config = composed(
        f"init_from={quoted(parent)}",
        "init_optimizer=true",
        "budget.steps=14",
        "optimizer.weight_decay=0.77",
    )
    train(config, tmp_path / "run")
    state = torch.load(tmp_path / "run" / "checkpoints" / "step_00000014.pt", weights_only=True)
    decays = {group["weight_decay"] for group in state["optimizer"]["param_groups"]}
    assert 0.77 in decays


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["model.vocab_size=300"], r"parameter 'token_embedding.weight' has the shape \(257, 32\)"),
        (["model.d_model=64"], r"parameter 'token_embedding.weight' has the shape \(257, 32\)"),
        (["model.num_layers=3"], "has no parameter 'blocks.2."),
        (["model.num_layers=1"], "has a parameter 'blocks.1."),
        (["init_optimizer=true"], "is at step 12, and the budget ends at step 12"),
        (["init_optimizer=true", "optimizer=adamw", "budget.steps=20"], "is muon, not adamw"),
    ],
)
def test_what_does_not_fit_is_one_line(
    parent: Path, tmp_path: Path, overrides: list[str], expected: str
) -> None:
    config = composed(f"init_from={quoted(parent)}", *overrides)
    with pytest.raises(UserError, match=expected) as error:
        train(config, tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_another_tokenizer_of_the_same_size_is_refused(
    tiny: list[str], corpus: Path, tmp_path: Path
) -> None:
    options = [*tiny, "tokenizer=bpe_4k", "tokenizer.vocab_size=270", "budget.steps=1"]
    train(composed(*options), tmp_path / "parent")
    other = tmp_path / "other.txt"
    other.write_text(corpus.read_text().replace("the", "zyx"))
    changes = ["tokenizer=bpe_4k", "tokenizer.vocab_size=270", f"data.paths=['{other}']"]
    config = composed(f"init_from={tmp_path / 'parent'}", *changes)
    with pytest.raises(UserError, match="was trained with another tokenizer"):
        train(config, tmp_path / "child")
    kept = composed(f"init_from={tmp_path / 'parent'}", changes[-1])
    train(kept, tmp_path / "child")  # other data, tokenized as the weights know it


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["init_from=nowhere"], "nowhere is not a run directory"),
        (["resume=nowhere", "lr=1"], "nowhere is not a run directory"),
        (["init_optimizer=true"], "needs init_from=RUN"),
        (["resume={parent}", "init_from={parent}"], "give one of them"),
        (["init_from={parent}/config.yaml"], "is not a run directory"),
        (["init_from={parent}/checkpoints/step_00000099.pt"], "is not a run directory"),
        (["init_from={empty}"], "has no checkpoint in checkpoints/"),
    ],
)
def test_paths_that_are_no_runs(
    parent: Path, tmp_path: Path, overrides: list[str], expected: str
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    shutil.copy(parent / "config.yaml", empty)
    filled = [text.format(parent=parent, empty=empty) for text in overrides]
    with pytest.raises((UserError, ConfigError), match=expected) as error:
        composed(*(re.sub("=(.*/.*)", r"='\1'", text) for text in filled))
    assert "\n" not in str(error.value)


def test_a_run_of_a_later_version_is_refused(parent: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(parent, run)
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(re.sub(r"schema_version: \d+", "schema_version: 999", text))
    with pytest.raises(UserError, match="schema version 999"):
        composed(f"resume={run}")


def test_a_copied_run_is_ready_for_a_notebook(parent: Path, tmp_path: Path) -> None:
    """Without the cache of its data, and without the folder it was made in."""
    copy = tmp_path / "copy"
    shutil.copytree(parent, copy)
    run = lmlab.load(copy)
    assert (run.step, run.config.seed, run.directory) == (12, 3, copy)
    text = "the old sea"
    logits = run.logits(text)
    assert logits.shape == (len(text) + 1, 257)
    ids = torch.tensor(run.encode(text))
    expected = torch.nn.functional.cross_entropy(logits[:-1], ids[1:]).item()
    assert run.loss(text) == pytest.approx(expected)
    assert run.bits_per_byte(text) == pytest.approx(expected / math.log(2))
    earlier = lmlab.load(copy / "checkpoints" / "step_00000003.pt")
    assert earlier.step == 3
    assert earlier.loss(text) != run.loss(text)
    assert lmlab.load(str(copy / "checkpoints" / "latest")).step == 12
    with pytest.raises(UserError, match="longer than the context"):
        run.logits("x" * 40)
    with pytest.raises(UserError, match="an empty text has no loss"):
        run.loss("")


def test_a_run_of_version_0_1_gets_its_tokenizer_by_resuming(
    parent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(parent, run)
    shutil.rmtree(run / "tokenizer")
    (run / "data.json").unlink()
    with pytest.raises(UserError, match=r"resume=.* adds it"):
        lmlab.load(run)
    train(composed(f"resume={run}"), run)
    assert lmlab.load(run).step == 12
    assert "is finished already" in capsys.readouterr().err


def test_composing_in_python_is_what_the_command_line_does() -> None:
    config = lmlab.compose("model=small", "lr=3e-4")
    assert isinstance(config, lmlab.RunConfig)
    assert config == composed("model=small", "lr=3e-4")
    assert set(dir(lmlab)) >= {"RunConfig", "compose", "load"}
    with pytest.raises(ConfigError, match=r"model\.dropuot"):
        lmlab.compose("+model.dropuot=0.1")


@pytest.mark.parametrize("name", ["result.json", "environment.json", "data.json"])
def test_a_damaged_record_is_one_line(name: str, unfinished: Path) -> None:
    (unfinished / name).write_text('{"val_loss": 2.')
    with pytest.raises(UserError, match=rf"{name}: damaged \(.*\); repair it or remove it"):
        train(composed(f"resume={quoted(unfinished)}"), unfinished)
    (unfinished / name).write_text("[]")
    with pytest.raises(UserError, match=rf"{name}: expected keys and values, got list"):
        train(composed(f"resume={quoted(unfinished)}"), unfinished)


@pytest.mark.parametrize("key", ["resume", "init_from"])
def test_a_cut_configuration_is_named(key: str, unfinished: Path) -> None:
    path = unfinished / "config.yaml"
    text = path.read_text()
    for end in range(0, len(text), len(text) // 12):
        path.write_text(text[:end])
        with pytest.raises(UserError, match=re.escape(str(path))) as error:
            composed(f"{key}={quoted(unfinished)}")
        assert "\n" not in str(error.value)
    path.write_text("name: x\nmodel: [\n")
    with pytest.raises(UserError, match=r"config\.yaml: line 3: expected the node content"):
        composed(f"{key}={quoted(unfinished)}")


def test_starting_again_without_a_checkpoint_is_said(
    parent: Path, unfinished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = sorted((unfinished / "checkpoints").glob("step_*.pt"))
    for path in (first, second):
        path.write_bytes(path.read_bytes()[:100])
    train(composed(f"resume={quoted(unfinished)}"), unfinished)
    said = capsys.readouterr().err
    assert re.search(rf"{second.name} is damaged \(.*\): trying the previous one", said)
    assert re.search(rf"{first.name} is damaged \(.*\): there is no earlier one", said)
    assert "checkpoints has no checkpoint to continue from: starting at step 0" in said
    assert rows(unfinished) == rows(parent)
