"""The page of a sweep: what it says, and that it works in a real browser."""

from pathlib import Path
from typing import Any

import pytest
from fake_sweep import grid_sweep, lr_sweep, write_sweep_run

from browser import CHROMIUM, look
from lmlab.runs.sweep_report import write_sweep_report

# Uses the page as a person does and says what it sees.
PROBE = """
<script>
(async () => {
  const all = (selector) => Array.from(document.querySelectorAll(selector));
  const wait = () => new Promise((resolve) => setTimeout(resolve, 300));
  while (!document.body.dataset.drawn) await wait();
  const loss = document.getElementById("loss"), form = document.querySelector(".controls");
  const axes = all("[data-axis]").map((chart) => ({
    type: chart.layout.xaxis.type,
    points: chart.data.filter((t) => t.text && t.marker.symbol !== "x").map((t) => t.y.length),
    diverged: chart.data.filter((t) => t.marker.symbol === "x").map((t) => t.x),
    lines: chart.data.filter((t) => !t.text).map((t) => [t.name, t.x, t.y]),
  }));
  const look = () => ({
    curves: loss.data.filter((t) => t.mode.startsWith("lines")).length,
    title: [loss.layout.xaxis.title.text, loss.layout.yaxis.title.text],
    types: [loss.layout.xaxis.type, loss.layout.yaxis.type],
    range: loss.layout.yaxis.range,
    names: loss.data.map((t) => t.name),
    background: loss.layout.paper_bgcolor,
  });
  const first = look();
  form.elements.x.value = "tokens";
  form.elements.loss.value = "train";
  form.elements.seeds.value = "mean";
  form.elements.logx.click();
  await wait();
  const second = look();
  const table = all(".sortable")[0], heads = Array.from(table.querySelectorAll("th"));
  const column = heads.findIndex((th) => /loss/.test(th.textContent));
  const rows = () => Array.from(table.tBodies[0].rows);
  const cells = () => rows().map((row) => row.cells[column].textContent.trim());
  const button = heads[column].querySelector("button");
  const sorted = [cells()];
  for (const _ of [0, 1]) { button.click(); sorted.push(cells()); }
  button.focus();
  const seen = { axes, first, second, sorted };
  seen.aria = heads[column].getAttribute("aria-sort");
  seen.focus = getComputedStyle(button).outlineStyle;
  seen.buttons = all("#loss .modebar-btn").map((b) => b.dataset.title);
  seen.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  seen.problem = document.getElementById("problem").hidden === false;
  parent.postMessage(JSON.stringify(seen), "*");
})();
</script>
"""
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")


def visit(folder: Path, width: int = 1200, *options: str) -> dict[str, Any]:
    return look(write_sweep_report(folder), PROBE, width, *options)


def test_the_answer_comes_first(tmp_path: Path) -> None:
    folder = lr_sweep(tmp_path)
    html = write_sweep_report(folder).read_text()
    answer = html.index("lr=0.01: validation loss 3.5507 ± 0.0274 (3 seeds)")
    assert answer < html.index("<h2")
    assert "significant (p &lt; 0.001, adjusted for all pairs of 6 settings)" in html
    assert "Diverged: lr=1 (3 of 3)." in html
    assert html.count('<tr class="best">') == 1
    for run in folder.iterdir():
        if run.is_dir():
            assert f'href="{run.name}/"' in html
    assert "http" not in html.partition('<script type="text/plain"')[0].replace("http-equiv", "")


def test_links_reach_folders_with_any_name(tmp_path: Path) -> None:
    write_sweep_run(tmp_path / "a#b %41?", {"seed": 0}, 3.0)
    assert 'href="a%23b%20%2541%3F/' in write_sweep_report(tmp_path).read_text()


def test_names_are_text(tmp_path: Path) -> None:
    html = write_sweep_report(grid_sweep(tmp_path)).read_text()
    assert "<b>moe</b>" not in html
    assert "&lt;b&gt;moe&lt;/b&gt;" in html


@needs_browser
def test_charts_and_tables_work(tmp_path: Path) -> None:
    seen = visit(lr_sweep(tmp_path))
    (axis,) = seen["axes"]
    assert axis["type"] == "log"
    assert axis["points"] == [18]
    assert axis["diverged"] == [[1, 1, 1]]
    ((_, xs, ys),) = axis["lines"]
    assert xs == [0.0003, 0.001, 0.003, 0.01, 0.03, 0.1]
    assert ys[3] == pytest.approx((3.54 + 3.55 + 3.562) / 3)
    first, second = seen["first"], seen["second"]
    assert first["curves"] == 21
    assert first["title"] == ["step", "validation loss (nats per token)"]
    assert first["range"][1] < 10  # not flattened by the runs that diverged
    assert second["curves"] == 7
    assert second["title"] == ["tokens", "training loss (nats per token)"]
    assert second["types"] == ["log", "linear"]
    before, up, down = seen["sorted"]
    assert before[0] == "4.6007"
    assert (up[0], up[-1]) == ("3.5507", "–")  # what is missing comes last, both ways
    assert (down[0], down[-1]) == ("4.6007", "–")
    assert seen["aria"] == "descending"
    assert len(seen["buttons"]) == 6


@needs_browser
def test_two_axes_and_names(tmp_path: Path) -> None:
    seen = visit(grid_sweep(tmp_path))
    assert [axis["type"] for axis in seen["axes"]] == ["category", "log"]
    assert {name for name, _, _ in seen["axes"][1]["lines"]} == {
        "&lt;b>moe&lt;/b>",
        "glu",
        "mlp",
    }
    assert seen["axes"][0]["diverged"] == [["glu"]]


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize("kind", ["lr", "grid", "one", "seeds", "bad"])
def test_every_kind_of_sweep_fits_a_phone(tmp_path: Path, kind: str) -> None:
    if kind == "lr":
        lr_sweep(tmp_path)
    elif kind == "grid":
        grid_sweep(tmp_path)
    elif kind == "one":
        write_sweep_run(tmp_path, {"seed": 0}, 3.0)
    elif kind == "seeds":
        for seed in range(3):
            write_sweep_run(tmp_path, {"seed": seed}, 3.0 + seed)
    else:
        for lr in (1.0, 2.0):
            write_sweep_run(tmp_path, {"seed": 0, "lr": lr}, None)
    visit(tmp_path, 360)


@pytest.mark.slow
@needs_browser
def test_the_page_follows_the_colour_scheme(tmp_path: Path) -> None:
    lr_sweep(tmp_path)
    dark = visit(tmp_path, 1200, "--blink-settings=preferredColorScheme=0")["first"]["background"]
    light = visit(tmp_path, 1200, "--blink-settings=preferredColorScheme=1")["first"]["background"]
    assert (dark, light) == ("#0f1318", "#ffffff")
