"""The report in a real browser. Skipped where no Chromium is installed."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from fake_run import write_run

from browser import CHROMIUM, look
from lmlab.runs.curves import smooth, smoothing_weight
from lmlab.runs.report import write_report

# Runs beside the page's own script: uses the controls as a person does and says what it sees.
PROBE = """
<script>
(async () => {
  const all = (selector) => Array.from(document.querySelectorAll(selector));
  const wait = () => new Promise((resolve) => setTimeout(resolve, 300));
  const loss = document.getElementById("loss"), form = document.querySelector(".controls");
  while (loss && !document.body.dataset.drawn) await wait();
  const look = () => loss && {
    charts: all(".chart .main-svg:first-child").length,
    curves: loss.querySelectorAll(".scatterlayer .trace").length,
    data: Object.fromEntries(loss.data.map((trace) => [trace.name, { x: trace.x, y: trace.y }])),
    title: loss.layout.xaxis.title.text,
    types: [loss.layout.xaxis.type, loss.layout.yaxis.type],
    background: loss.layout.paper_bgcolor,
  };
  const seen = { first: look(), buttons: all(".modebar-btn").map((b) => b.dataset.title) };
  seen.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  seen.problem = document.getElementById("problem")?.hidden === false;
  if (loss) {
    form.elements.x[1]?.click();
    form.elements.logx.click();
    form.elements.logy.click();
    form.elements.smoothing.value = 0;
    form.elements.smoothing.dispatchEvent(new Event("input", { bubbles: true }));
    await wait();
    seen.second = look();
  }
  parent.postMessage(JSON.stringify(seen), "*");
})();
</script>
"""


def visit(run_dir: Path, width: int = 1200, *options: str) -> dict[str, Any]:
    """Open the report at this width and return what the probe saw."""
    return look(write_report(run_dir), PROBE, width, *options)


pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")


def test_charts_are_drawn_and_obey_the_controls(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path)
    seen = visit(run_dir)
    first, second = seen["first"], seen["second"]
    assert first["charts"] == 4  # the loss, learning rate, gradient norm, tokens per second
    assert first["curves"] == 4  # training raw and smoothed, validation, its best
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    training = [row["train/loss"] for row in rows if "train/loss" in row]
    validation = [row for row in rows if "val/loss" in row]
    assert first["data"]["training"]["y"] == training
    assert first["data"]["validation"] == {
        "x": [row["step"] for row in validation],
        "y": [row["val/loss"] for row in validation],
    }
    expected = smooth(training, round(smoothing_weight(len(training)), 2))  # the slider has steps
    assert first["data"]["training (smoothed)"]["y"] == pytest.approx(expected)
    assert (first["title"], first["types"]) == ("step", ["linear", "linear"])
    assert second["data"]["validation"]["x"] == [row["tokens"] for row in validation]
    assert second["data"]["training (smoothed)"]["y"] == pytest.approx(training)
    assert (second["title"], second["types"]) == ("tokens", ["log", "log"])
    # plotly's own list of buttons has one that uploads the chart
    assert len(seen["buttons"]) == 6
    assert not re.search("share|cloud|edit", " ".join(seen["buttons"]), re.IGNORECASE)


@pytest.mark.slow
def test_every_state_of_a_run_fits_a_phone_without_complaint(any_run: Path) -> None:
    visit(any_run, 360)


@pytest.mark.slow
def test_the_charts_follow_the_colour_scheme(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path)
    dark = visit(run_dir, 1200, "--blink-settings=preferredColorScheme=0")["first"]["background"]
    light = visit(run_dir, 1200, "--blink-settings=preferredColorScheme=1")["first"]["background"]
    assert (dark, light) == ("#0f1318", "#ffffff")
