"""Tables of sweeps: axes found, seeds averaged, every run listed."""

import csv
import errno
import io
import json
from pathlib import Path

import pytest
from fake_sweep import grid_sweep, lr_sweep, write_sweep_run

from lmlab.cli import main
from lmlab.errors import UserError
from lmlab.runs.collect import collect, find_axes
from lmlab.runs.sweep_plot import numeric_axis, write_sweep_plot
from lmlab.runs.sweep_report import write_sweep_report
from lmlab.runs.tables import to_csv, to_markdown
from lmlab.runs.verdict import judge


def test_axes_are_what_was_varied(tmp_path: Path) -> None:
    """What follows another key is no axis: optimizer.lr follows lr, beta1 its optimizer's kind."""
    assert collect(lr_sweep(tmp_path / "lr")).axes == ("lr",)
    assert collect(grid_sweep(tmp_path / "g")).axes == ("model.ffn.kind", "trainer.batch_size")
    adamw = {"optimizer.kind": "adamw", "optimizer.beta1": 0.9}
    sgd = {"optimizer.kind": "sgd", "optimizer.momentum": 0.9}
    assert find_axes([adamw | {"lr": 1}, adamw | {"lr": 2}, sgd | {"lr": 1}]) == (
        "optimizer.kind",
        "lr",
    )
    pairs = [{"norm": "rms", "lr": 1}, {"norm": "rms", "lr": 2}, {"norm": "none", "lr": 2}]
    assert find_axes(pairs) == ("norm", "lr")
    assert find_axes([{"seed": 0, "lr": 1}, {"seed": 1, "lr": 1}]) == ()


def test_csv_has_a_line_for_each_run(tmp_path: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(collect(lr_sweep(tmp_path))))))
    assert len(rows) == 21
    best = [row for row in rows if row["lr"] == "0.01"]
    assert [row["seed"] for row in best] == ["0", "1", "2"]
    assert [float(row["val_loss"]) for row in best] == pytest.approx([3.54, 3.55, 3.562])
    assert {row["n"] for row in best} == {"3"}
    assert float(best[0]["mean"]) == pytest.approx((3.54 + 3.55 + 3.562) / 3)
    assert float(best[0]["ci_low"]) < float(best[0]["mean"]) < float(best[0]["ci_high"])
    diverged = [row for row in rows if row["status"] == "diverged"]
    assert [(row["lr"], row["n"], row["mean"]) for row in diverged] == [("1", "0", "")] * 3


def test_markdown_has_settings_and_runs(tmp_path: Path) -> None:
    text = to_markdown(collect(grid_sweep(tmp_path)))
    first, best, second = text.split("\n\n")
    assert first.splitlines()[0].startswith("| ffn | batch_size | seeds | val_loss | sd |")
    assert len(first.splitlines()) == 2 + 9
    assert "| glu | 4 | 1 | 3.5675 | – | – | 1 of 2 |" in first
    assert best.startswith("Best: ffn=glu, batch_size=16: validation loss ")
    assert len(second.splitlines()) == 2 + 18


def test_the_best_is_told_from_noise(tmp_path: Path) -> None:
    verdict = judge(collect(lr_sweep(tmp_path / "lr")))
    assert verdict.headline == "lr=0.01: validation loss 3.5507 ± 0.0274 (3 seeds)"
    assert "0.1500 better than the next, lr=0.03: significant (p < 0.001" in verdict.support
    verdict = judge(collect(grid_sweep(tmp_path / "grid")))
    assert str(verdict.best) == "ffn=glu, batch_size=16"
    assert "0.0050 better than the next" in verdict.support
    assert "significant (p" in verdict.support


def test_a_verdict_says_what_it_does_not_know(tmp_path: Path) -> None:
    one = judge(collect(lr_sweep(tmp_path / "one", seeds=1)))
    assert "without a second seed the significance is unknown" in one.support
    for seed in range(2):
        write_sweep_run(tmp_path / "bad", {"seed": seed, "lr": 1.0 + seed}, None)
    assert judge(collect(tmp_path / "bad")).headline == "Every setting diverged."
    write_sweep_run(tmp_path / "open", {"seed": 0, "lr": 1.0}, 3.0, finished=False)
    assert judge(collect(tmp_path / "open")).headline == "No run has finished yet."


def test_the_next_best_is_one_that_never_diverged(tmp_path: Path) -> None:
    """The seeds that a setting has left after diverging with another are the lucky ones."""
    losses = {0.001: (2.0, 2.02, 1.98), 0.01: (1.5, 1.52, None), 0.1: (2.5, 2.52, 2.49)}
    for lr, ends in losses.items():
        for seed, loss in enumerate(ends):
            write_sweep_run(tmp_path, {"seed": seed, "lr": lr}, loss)
    verdict = judge(collect(tmp_path))
    assert str(verdict.best) == "lr=0.001"
    assert [str(comparison.setting) for comparison in verdict.comparisons] == ["lr=0.1"]
    assert verdict.support == (
        "0.5033 better than the next, lr=0.1: significant (p < 0.001). "
        "lr=0.01 was lower where it did not diverge (2 of 3 seeds)."
    )


def test_a_setting_does_not_become_the_best_by_lacking_a_hard_seed(tmp_path: Path) -> None:
    hard = {0: 0.0, 1: 0.01, 2: 0.02, 3: 0.5}
    for lr, seeds, loss in ((0.1, 4, 3.0), (0.2, 3, 3.02)):  # 0.02 worse at each seed
        for seed in range(seeds):
            noise = 0.0005 * (seed % 2) * (1 if lr == 0.1 else -1)
            write_sweep_run(tmp_path, {"seed": seed, "lr": lr}, loss + hard[seed] + noise)
    verdict = judge(collect(tmp_path))
    assert str(verdict.best) == "lr=0.1"
    assert "0.0197 better than the next, lr=0.2: significant (p" in verdict.support
    assert "Not all settings have all seeds" in verdict.noise


def test_where_higher_is_better_the_others_are_worse_by_a_positive_amount(tmp_path: Path) -> None:
    for lr, speed in ((0.001, 900.0), (0.01, 1000.0), (0.1, 800.0)):
        for seed in range(2):
            run = write_sweep_run(tmp_path, {"seed": seed, "lr": lr}, 3.0)
            result = json.loads((run / "result.json").read_text())
            result["tokens_per_second"] = speed + seed
            (run / "result.json").write_text(json.dumps(result))
    verdict = judge(collect(tmp_path, "tokens_per_second"))
    assert str(verdict.best) == "lr=0.01"
    assert [c.difference.value for c in verdict.comparisons] == [100.0, 200.0]
    low, high = verdict.comparisons[0].difference.low, verdict.comparisons[0].difference.high
    assert low is not None
    assert high is not None
    assert low == 100 == high  # every setting gains as much with the second seed


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = lr_sweep(tmp_path / "sweep")
    assert main(["collect", str(folder), "--format", "csv"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 22
    assert main(["collect", str(folder), "--output", str(tmp_path / "table.md")]) == 0
    assert (tmp_path / "table.md").read_text().startswith("| lr |")
    assert main(["report", str(folder)]) == 0
    assert capsys.readouterr().out.strip() == str(folder / "sweep.html")
    (tmp_path / "none").mkdir()
    for arguments, text in (
        (["collect", str(tmp_path / "none")], "there are no runs in"),
        (["collect", str(tmp_path / "nowhere")], "is not a folder"),
        (["collect", str(folder), "--metric", "los"], "'los' is not one of val_loss"),
    ):
        assert main(arguments) == 1
        error = capsys.readouterr().err
        assert text in error
        assert len(error.splitlines()) == 1


def test_a_file_that_cannot_be_written_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = lr_sweep(tmp_path / "sweep", seeds=1)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").touch()
    (folder / "sweep.html").mkdir()
    for arguments, text in (
        (["collect", str(folder), "--output", str(tmp_path / "folder")], "Is a directory: "),
        (["collect", str(folder), "--plot", str(tmp_path / "folder.png")], "Is a directory: "),
        (["collect", str(folder), "--output", str(tmp_path / "file" / "a")], "File exists: "),
        (["collect", str(folder), "--output", "/dev/null/a"], "File exists: "),
        (["report", str(folder)], "Is a directory: "),
    ):
        assert main(arguments) == 1
        error = capsys.readouterr().err
        assert error.startswith(f"lmlab: {text}/")
        assert len(error.splitlines()) == 1
        assert ".tmp" not in error


def test_an_error_that_is_no_mistake_keeps_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("lmlab.runs.collect.collect", broken)
    with pytest.raises(OSError, match="Input/output error"):
        main(["collect", str(tmp_path)])


def test_a_copy_of_a_run_is_no_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder, started in (("b", "2026-01-01"), ("a", "2026-01-02")):
        for seed, loss in enumerate((3.0, 3.1)):
            loss += 0.5 if folder == "b" else 0.0
            run = write_sweep_run(tmp_path / folder, {"seed": seed, "lr": 1.0}, loss)
            (run / "environment.json").write_text(json.dumps({"started": started}))
    sweep = collect(tmp_path)
    (setting,) = sweep.settings
    assert setting.values == [3.0, 3.1]
    assert {row.run.directory.parent.name for row in sweep.rows} == {"a"}
    said = "2 runs are left out: the newest with a result counts of each setting and seed."
    assert main(["collect", str(tmp_path)]) == 0
    assert capsys.readouterr().err == f"lmlab: {said}\n"
    assert main(["report", str(tmp_path)]) == 0
    html = (tmp_path / "sweep.html").read_text()
    assert f"1 settings, 2 seeds, 2 runs: 2 finished. {said} Intervals" in html


def test_a_run_that_was_started_again_counts_until_the_new_one_has_a_result(tmp_path: Path) -> None:
    for folder, started, done in (("a", "2026-01-01", True), ("b", "2026-01-02", False)):
        run = write_sweep_run(tmp_path / folder, {"seed": 0, "lr": 1.0}, 3.0, finished=done)
        (run / "environment.json").write_text(json.dumps({"started": started}))
    sweep = collect(tmp_path)
    assert sweep.settings[0].values == [3.0]
    assert sweep.copies == 1


def test_a_result_that_is_not_a_number_is_a_divergence(tmp_path: Path) -> None:
    for lr, losses in ((0.1, (3.0, 3.1, 3.2)), (0.2, (2.0, 2.1, 2.2))):
        for seed, loss in enumerate(losses):
            run = write_sweep_run(tmp_path, {"seed": seed, "lr": lr}, loss)
    result = json.loads((run / "result.json").read_text()) | {"val_loss": None}
    (run / "result.json").write_text(json.dumps(result))
    sweep = collect(tmp_path)
    assert [setting.diverged for setting in sweep.settings] == [0, 1]
    assert str(judge(sweep).best) == "lr=0.1"


def test_keys_that_change_only_together_are_named(tmp_path: Path) -> None:
    for lr, steps in ((0.1, 100), (0.2, 1000)):
        for seed in range(2):
            config = {"seed": seed, "lr": lr, "optimizer": {"lr": lr}, "budget": {"steps": steps}}
            write_sweep_run(tmp_path, config, 3.0 - lr, steps=steps)
    sweep = collect(tmp_path)
    assert sweep.axes == ("lr",)
    assert sweep.confounded == "lr changed only together with budget.steps."
    assert sweep.confounded in to_markdown(sweep)
    write_sweep_report(tmp_path)
    assert sweep.confounded in (tmp_path / "sweep.html").read_text()
    assert not collect(lr_sweep(tmp_path / "lr")).confounded
    assert not collect(grid_sweep(tmp_path / "grid")).confounded


def test_tables_show_the_metric_of_the_task(tmp_path: Path) -> None:
    for seed, accuracy in enumerate((0.25, 0.5)):
        run = write_sweep_run(tmp_path, {"seed": seed, "lr": 1.0}, 3.0)
        own = {"metric": "val_accuracy", "maximize": True, "val_accuracy": accuracy}
        result = json.loads((run / "result.json").read_text()) | own
        (run / "result.json").write_text(json.dumps(result))
    sweep = collect(tmp_path)
    rows = list(csv.DictReader(to_csv(sweep).splitlines()))
    assert [(row["val_accuracy"], row["metric"], row["mean"]) for row in rows] == [
        ("0.25", "val_accuracy", "0.375"),
        ("0.5", "val_accuracy", "0.375"),
    ]
    assert "| status | val_accuracy | val_loss |" in to_markdown(sweep)
    assert "| finished | 0.5000 | 3.0000 |" in to_markdown(sweep)
    write_sweep_report(tmp_path)
    assert 'data-value="0.5">0.5000</td>' in (tmp_path / "sweep.html").read_text()


def test_the_training_loss_is_that_of_the_last_tenth(tmp_path: Path) -> None:
    run = write_sweep_run(tmp_path, {"seed": 0, "lr": 1.0}, 3.0)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    last = [row["train/loss"] for row in rows if row["step"] > 90]
    (row,) = collect(tmp_path, "train_loss").rows
    assert row.metric == pytest.approx(sum(last) / len(last))


def test_an_unknown_metric_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not one of"):
        collect(lr_sweep(tmp_path), "val/loss")


def test_plots_show_numbers_against_the_metric_and_names_in_rows(tmp_path: Path) -> None:
    """What is drawn is looked at; here: which picture it is, and that there is one."""
    lines, grid = collect(lr_sweep(tmp_path / "lr")), collect(grid_sweep(tmp_path / "grid"))
    assert (numeric_axis(lines), numeric_axis(grid)) == ("lr", "trainer.batch_size")
    for seed in range(2):
        for kind in ("glu", "mlp"):
            config = {"seed": seed, "model": {"ffn": {"kind": kind}}}
            write_sweep_run(tmp_path / "names", config, 3.0 + seed)
    names = collect(tmp_path / "names")
    assert numeric_axis(names) is None
    for sweep in (lines, grid, names):
        picture = write_sweep_plot(sweep, tmp_path / "plot.png").read_bytes()
        assert picture.startswith(b"\x89PNG")
        assert len(picture) > 5000


@pytest.mark.parametrize(
    ("metric", "best"),
    [
        *((m, "lr=0.1") for m in ("val_accuracy", "val_sampled_accuracy", "val_margin")),
        *((m, "lr=0.1") for m in ("val_reward", "val_format", "val_pass_at_8")),
        *((m, "lr=0.01") for m in ("val_loss", "val_kl", "val_reward_failures")),
    ],
)
def test_metrics_beside_the_tasks_own_have_their_direction(
    metric: str, best: str, tmp_path: Path
) -> None:
    for lr, value in ((0.01, 0.2), (0.1, 0.9)):
        for seed in range(2):
            run = write_sweep_run(tmp_path, {"seed": seed, "lr": lr}, 3.0)
            result = json.loads((run / "result.json").read_text())
            result[metric] = value + seed / 100
            (run / "result.json").write_text(json.dumps(result))
    assert str(judge(collect(tmp_path, metric)).best) == best
