"""`lmlab scaling` as a user calls it: results, pictures, pages, and mistakes of one line."""

import csv
import json
import re
import shutil
import socket
import subprocess
import warnings
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from tables import COURSE, isoflop_table

from lmlab.cli import main
from lmlab.scaling.table import Runs, make_runs

FAST = ("--samples", "100")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return written(isoflop_table(noise=0.002), tmp_path / "runs.csv")


def written(runs: Runs, path: Path, rows: slice = slice(None)) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("parameters", "tokens", "flops", "loss"))
        values = zip(runs.parameters, runs.tokens, runs.flops, runs.loss, strict=True)
        writer.writerows(list(values)[rows])
    return path


def rising(runs: Runs) -> Runs:
    """Return runs of these sizes and tokens whose loss rises with the size."""
    n, d = runs.parameters, runs.tokens
    return make_runs(parameters=n, tokens=d, loss=2 + 300 * d**-0.3 + 0.02 * n**0.1)


def test_a_prediction_holds_the_law_and_its_cost(
    table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["scaling", "predict", str(table), "--budget", "1e22", "4e22", *FAST]
    assert main([*command, "--device", "H100", "--mfu", "0.5", "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    for found in (first, second):
        n, d = COURSE.optimum(found["flops"])
        assert found["loss"] == pytest.approx(COURSE.best_loss(found["flops"]), rel=0.01)
        assert found["parameters"] == pytest.approx(n, rel=0.3)
        assert found["tokens"] == pytest.approx(d, rel=0.3)
        low, high = found["loss_interval"]
        assert low < found["loss"] < high
        low, high = found["flat_region"]
        assert low < found["parameters"] < high
    assert first["times_largest"] == pytest.approx(10)
    peak, seconds = 989e12, 3600
    assert first["device_hours"] == pytest.approx(1e22 / (0.5 * peak * seconds), rel=0.35)
    assert second["device_hours"] == pytest.approx(4 * first["device_hours"], rel=0.1)
    assert main([*command, "--device", "H100"]) == 0
    text = capsys.readouterr().out
    assert "1e+22 FLOPs, 10 times the largest run" in text
    assert "device hours; memory for at least" in text


def test_the_cost_is_of_a_shape_that_the_model_can_have(
    table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["scaling", "predict", str(table), *FAST, "--device", "H100", "--budget"]
    assert main([*command, "1e22", "--model", "model=70b"]) == 0  # 8 heads of keys and values
    heads = re.search(r"num_heads=(\d+)", capsys.readouterr().out)
    assert heads is not None
    assert int(heads[1]) % 8 == 0
    hybrid = "model/attention=hybrid"
    pattern = "model.attention.pattern=[local,local,local,local,local,local,global]"
    assert main([*command, "1e12", "--model", "model=small", hybrid, pattern]) == 0
    layers = re.search(r"num_layers=(\d+)", capsys.readouterr().out)
    assert layers is not None
    assert int(layers[1]) >= 7
    for budget, model, message in (
        ("1e13", "model=70b", "num_kv_heads=8 does not divide num_heads=2; give another --model"),
        ("1e6", "model=small", "shapes have 4.9e+04 to 5.2e+11; leave out --device"),
        ("1e30", "model=small", "shapes have 4.9e+04 to 5.2e+11; leave out --device"),
    ):
        assert main([*command, budget, "--model", model]) == 1
        assert message in capsys.readouterr().err


def test_runs_that_are_not_fitted_are_checked(
    table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    n, d = COURSE.optimum(np.array([4e21, 1e22]))
    held = make_runs(parameters=n, tokens=d, loss=COURSE.loss(n, d) * np.array([1.0, 1.05]))
    other = written(held, table.parent / "held.csv")
    command = ["scaling", "predict", str(table), "--check", str(other), *FAST]
    assert main([*command, "--json"]) == 0
    good, bad = json.loads(capsys.readouterr().out)
    assert good["predicted"] == pytest.approx(COURSE.loss(n, d)[0], rel=0.01)
    assert good["interval"]["low"] < good["loss"] < good["interval"]["high"] < 1.02 * good["loss"]
    assert bad["error"] == pytest.approx(0.05, abs=0.01)
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines] == ["inside", "outside"]
    page = table.parent / "a.html"
    command = ["scaling", "report", str(table), "--check", str(other), *FAST]
    assert main([*command, "--output", str(page), "--plot", str(page.with_suffix(".png"))]) == 0
    assert "Runs that are not fitted" in page.read_text()


def test_two_servers_do_not_share_a_state(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = tmp_path / "state.json"
    with FileLock(tmp_path / ".state.json.lock"), socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        command = ["scaling", "serve", "--api-key", "a", "--port", port, "--state", str(state)]
        assert main(command) == 1
    assert f"another server keeps its runs in {state}" in capsys.readouterr().err


def test_what_is_not_determined_is_null_in_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = written(rising(isoflop_table()), tmp_path / "rising.csv")

    def refused(constant: str) -> float:
        raise AssertionError(constant)

    assert main(["scaling", "fit", str(table), "--json", *FAST]) == 0
    found = json.loads(capsys.readouterr().out, parse_constant=refused)
    assert found["intervals"]["a"] == found["intervals"]["b"] == [None, None]
    assert "flat_region" not in found
    assert found["notes"][0].startswith("alpha is -0.1: the loss does not fall with the size")


def test_all_approaches_read_a_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scaling", "fit", str(folder), "--counting", "no_scores", "--json", *FAST]) == 0
    fit = json.loads(capsys.readouterr().out)
    assert fit["runs"] == 8
    assert fit["notes"][0] == "Counted: no_scores."
    for more in (["--approach", "1"], ["--approach", "2"], ["--hyperparameter", "lr"]):
        code = main(["scaling", "fit", str(folder), *more, *FAST])
        lines = capsys.readouterr().err.splitlines()
        assert (code, len(lines)) in ((0, 0), (1, 1)), lines
        assert code == 0 or str(folder) in lines[0]  # such short runs may have no optimum inside


def test_rows_of_a_folder_are_chosen(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["scaling", "fit", str(folder), "--json", *FAST]
    assert main([*command, "--where", "lr=0.01", "seed=0", "parametrization=standard"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"] == 8
    assert main([*command, "--drop-highest", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"] == 7
    for wrong, message in (("seed=3", "has no runs with seed=3"), ("a=b", "has no column 'a'")):
        assert main([*command, "--where", wrong]) == 1
        assert message in capsys.readouterr().err


def test_the_picture_and_the_page(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    picture, page = table.parent / "law.png", table.parent / "law.html"
    command = ["scaling", "report", str(table), "--plot", str(picture), "--output", str(page)]
    assert main([*command, "--target", "1e22", *FAST]) == 0
    assert capsys.readouterr().out.splitlines() == [str(page), str(picture)]
    with Image.open(picture) as image:
        assert image.width > 2 * image.height
        assert len(set(np.asarray(image.convert("L")).ravel().tolist())) > 50
    text = page.read_text()
    assert "Optima of the budgets" in text
    assert "http" not in text.split("<script")[0].replace("http-equiv", "")


chromium = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.mark.skipif(chromium is None, reason="no browser")
def test_the_page_draws_its_charts_in_a_browser(table: Path) -> None:
    assert chromium is not None
    page = table.parent / "page.html"
    assert main(["scaling", "report", str(table), "--output", str(page), *FAST]) == 0
    probe = """<script>addEventListener("load", () => setTimeout(() => {
      const charts = [...document.querySelectorAll(".js-plotly-plot")];
      const runs = (chart) => chart.data.find((trace) => trace.name === "runs")?.x.length;
      const seen = charts.map((chart) => [chart.id, chart._fullLayout.xaxis.type, runs(chart)]);
      document.title = "SEEN" + JSON.stringify(seen) + "END";
    }, 3000));</script>"""
    page.write_text(page.read_text().replace("</body>", probe + "</body>"))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000"]
    profile = f"--user-data-dir={table.parent / 'browser'}"
    command = [chromium, *options, profile, "--enable-logging=stderr", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr, done.stderr
    seen = json.loads(unescape(done.stdout.partition("SEEN")[2].partition("END")[0]))
    assert seen == [
        ["profiles", "log", 48],
        ["sizes", "log", None],
        ["frontier", "log", 48],
        ["residuals", "log", 48],
    ]


GAME = ("plan", "--budget", "1e18", "--target", "1e19")
MISTAKES = {
    "nothing to predict": (["predict", "good.csv"], "give --budget FLOPS or --check TABLE"),
    "nothing to check": (["predict", "good.csv", "--check", "no.csv"], "no.csv does not exist"),
    "no table": (["fit", "nowhere.csv"], "nowhere.csv does not exist"),
    "few runs": (["fit", "few.csv"], "has 5 runs; the parametric law"),
    "one size": (["fit", "few.csv", "--approach", "2"], "has 1 size ("),
    "edge": (["fit", "edge.csv", "--approach", "2"], "at the edge of the sizes: 1e+18 (largest"),
    "not finite": (["fit", "nan.csv"], "run 2: loss is nan, it must be finite"),
    "repeated": (["fit", "twice.csv"], "runs 1 and 2 are the same"),
    "contradiction": (["fit", "contradicting.csv"], "runs 1 and 2 contradict each other"),
    "no column": (["fit", "few.csv", "--columns", "loss=x"], "has no column 'x'"),
    "no such name": (["fit", "few.csv", "--columns", "los=loss"], "'los' is not one of"),
    "no pair": (["fit", "few.csv", "--where", "a"], "--where takes NAME=VALUE, got 'a'"),
    "counting of a file": (["fit", "few.csv", "--counting", "all"], "--counting is for folders"),
    "no runs": (["fit", "."], "there are no finished runs in"),
    "columns of a folder": (["fit", ".", "--columns", "loss=b"], "--columns is for files"),
    "samples": (["fit", "few.csv", "--samples", "9"], "must be an integer of at least 100"),
    "budget": (["predict", "good.csv", "--budget", "-1"], "must be a positive number, got -1"),
    "mfu": (["predict", "good.csv", "--budget", "1e22", "--mfu", "40"], "share of the peak"),
    "device": (
        ["predict", "good.csv", "--budget", "1e22", "--device", "H999", "--samples", "100"],
        "H999",
    ),
    "rising": (["predict", "rising.csv", "--budget", "1e22"], "alpha is -0.1: the loss does not"),
    "rising page": (["report", "rising.csv"], "alpha is -0.1: the loss does not fall with the"),
    "curves": (["fit", "good.csv", "--approach", "1"], "curves have one point"),
    "hyperparameter": (["fit", "good.csv", "--hyperparameter", "lr"], "has no column 'lr'"),
    "no key": ([*GAME, "--server", "x"], "needs a key"),
    "server": (
        [
            "plan",
            "--budget",
            "1e18",
            "--target",
            "1e19",
            "--server",
            "http://127.0.0.1:9",
            "--api-key",
            "x",
        ],
        "no answer from http://127.0.0.1:9/total_flops_used",
    ),
    "runs of a server": (
        [*GAME, "--server", "x", "lr=1"],
        "--server makes no real runs; leave out lr=1",
    ),
    "small plan": (["plan", "--budget", "1e9", "--target", "1e10"], "is too small"),
    "least plan": (["plan", "--budget", "1e7", "--target", "1e8"], "real runs take from 1e+08 to"),
    "largest plan": (["plan", "--budget", "1e40", "--target", "1e41"], "real runs take from 1e+08"),
    "server without a name": ([*GAME, "--server", "", "--api-key", "a"], "no answer from /total"),
    "device without a name": (
        ["predict", "good.csv", "--budget", "1e22", "--device", "", "--samples", "100"],
        "no hardware sheet ''",
    ),
    "column without a name": (["fit", "good.csv", "--hyperparameter", ""], "has no column ''"),
    "steps of a plan": (
        ["plan", "--budget", "1e12", "--target", "1e13", "tokenizer=byte"],
        "its first runs train 49,152 parameters on",
    ),
    "name of a plan": (
        ["plan", "--budget", "1e14", "--target", "1e15", "name=a"],
        "leave out name=",
    ),
    "key of a plan": (
        ["plan", "--budget", "1e14", "--target", "1e15", "model.d_modle=3"],
        "did you mean 'd_model'?",
    ),
    "key of the server": (["serve"], "needs a key: --api-key KEY"),
    "port": (["serve", "--api-key", "a", "--port", "70000"], "--port must be at most 65535"),
    "reveal": (["serve", "--reveal", "0.5"], "--reveal: must be from 1 to 1e+100 FLOPs, got 0.5"),
    "target": (
        ["report", "good.csv", "--target", "1e300", "--plot", "a.png"],
        "--target: must be from 1 to 1e+100 FLOPs, got 1e300",
    ),
    "state": (["serve", "--api-key", "a", "--state", "few.csv"], "is not the state of a training"),
    "one width": (["coordinates", "--widths", "64"], "needs at least two different widths"),
    "heads of a width": (["coordinates", "--widths", "64", "96"], "96 is not a multiple of"),
    "set by the check": (["coordinates", "model.base_width=64"], "the check sets model.base_width"),
    "key of the check": (["coordinates", "lrr=1"], "did you mean 'lr'?"),
}


@pytest.mark.parametrize("target", ["1", "1e100"])
def test_the_largest_and_the_smallest_target_can_be_drawn(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written(isoflop_table(), tmp_path / "good.csv")
    with warnings.catch_warnings(action="error"):
        command = ["report", "good.csv", "--target", target, "--plot", "a.png", "--samples", "100"]
        assert main(["scaling", *command]) == 0


@pytest.mark.parametrize(("arguments", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LMLAB_SCALING_KEY", raising=False)
    runs = isoflop_table()
    written(runs, tmp_path / "good.csv")
    written(runs, tmp_path / "few.csv", slice(7, 12))
    inside = runs.parameters < COURSE.optimum(runs.flops)[0]
    written(runs.take(inside), tmp_path / "edge.csv")
    written(rising(runs), tmp_path / "rising.csv")
    rows = (tmp_path / "good.csv").read_text().splitlines()
    head, first = rows[:2]
    parts = first.split(",")
    for name, second in (
        ("nan", [*rows[2].split(",")[:3], "nan"]),
        ("twice", parts),
        ("contradicting", [*parts[:3], "9.5"]),
    ):
        lines = [head, first, ",".join(second), *rows[3:]]
        (tmp_path / f"{name}.csv").write_text("\n".join(lines))
    assert main(["scaling", *arguments]) == 1
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("lmlab: ")
    assert message in lines[0]
