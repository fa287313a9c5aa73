import base64
import gzip
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from fake_run import CONFIG, ENVIRONMENT, NASTY, metrics, write_run

import lmlab.runs.report as report
from lmlab.runs import page
from lmlab.runs.report import write_report


class Page(HTMLParser):
    """The parts of a page that the tests ask for: every tag, and the text by tag and id."""

    VOID = ("meta", "link", "input", "img", "wbr", "br")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str | None, str]] = []
        self.open: list[int] = []
        self.problems: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        if tag not in self.VOID:
            self.open.append(len(self.texts))
            self.texts.append((tag, attributes.get("id"), ""))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.texts[self.open.pop()][0] != tag:
            self.problems.append(f"unexpected </{tag}>")

    def handle_data(self, data: str) -> None:
        for index in self.open:
            tag, name, text = self.texts[index]
            self.texts[index] = (tag, name, text + data)

    def all(self, tag: str) -> list[str]:
        return [text for found, _, text in self.texts if found == tag]

    def by_id(self, wanted: str) -> str:
        return next(text for _, name, text in self.texts if name == wanted)


def load(run_dir: Path) -> Page:
    return Page(write_report(run_dir).read_text(encoding="utf-8"))


def curves(page: Page) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(page.by_id("curves-data"), parse_constant=pytest.fail)
    return parsed


def test_curves_are_what_the_run_logged(tmp_path: Path) -> None:
    rows = metrics()
    columns = curves(load(write_run(tmp_path, rows)))["columns"]
    for key in ("train/loss", "val/loss", "val/bits_per_byte", "lr", "grad_norm"):
        for x in ("step", "tokens", "seconds"):
            shown = [(a, b) for a, b in zip(columns[x], columns[key], strict=True) if b is not None]
            assert shown == [(row[x], row[key]) for row in rows if key in row]
    assert "mfu" not in columns  # never measured


def test_headline(tmp_path: Path) -> None:
    page = load(write_run(tmp_path))
    tiles = dict(zip(page.all("dt"), page.all("dd"), strict=True))
    assert tiles["Validation loss"] == "3.496best 3.496 at step 1,200"
    assert tiles["Bits per byte"] == "1.466xz on the same text: 1.620"
    assert tiles["Tokens per second"] == "13.8\u202fk"
    assert tiles["Parameters"] == "2.14\u202fM"
    assert tiles["Tokens"] == "2.46\u202fM"
    assert tiles["Time"] == "3\u202fmin 10\u202fs31.5\u202fTFLOP"
    assert page.all("h1") == ["demo finished"]


def test_an_unfinished_run_shows_how_far_it_got(tmp_path: Path) -> None:
    rows = [row for row in metrics() if row["step"] <= 205]
    page = load(write_run(tmp_path, rows, status=None))
    tiles = dict(zip(page.all("dt"), page.all("dd"), strict=True))
    assert page.all("h1") == ["demo unfinished"]
    assert tiles["Tokens"] == "420\u202fk"  # 205 * 2048
    assert tiles["Validation loss"].startswith("4.2")
    assert tiles["Parameters"] == "–"


def test_divergence_is_marked(tmp_path: Path) -> None:
    rows = metrics(steps=20)
    rows[-1]["train/loss"] = "nan"
    assert rows[-1]["step"] == 20
    data = curves(load(write_run(tmp_path, rows, status="diverged")))
    assert data["diverged_at"]["step"] == 20
    assert data["columns"]["train/loss"][-1] is None


def test_every_state_of_a_run_makes_a_sound_page(any_run: Path) -> None:
    page = load(any_run)
    assert not page.problems
    assert not page.open
    assert ("meta", {"charset": "utf-8"}) in page.tags
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    if any(tag == "script" for tag, _ in page.tags):
        assert all(isinstance(column, list) for column in curves(page)["columns"].values())
    else:
        assert "Nothing logged yet." in page.all("p")


def test_the_page_loads_nothing(tmp_path: Path) -> None:
    html = write_report(write_run(tmp_path)).read_text(encoding="utf-8")
    assert not re.search(r"https?:|//[a-z]+\.[a-z]", html.replace(base64_of(html), ""))
    for _, attributes in Page(html).tags:
        assert "src" not in attributes
        link = attributes.get("href") or "data:,"
        assert link == "data:," or (tmp_path / link).exists()
    policy = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'"
    assert policy in html


def base64_of(html: str) -> str:
    return Page(html).by_id("plotly-gz")


def test_plotly_is_inside(tmp_path: Path) -> None:
    html = write_report(write_run(tmp_path)).read_text(encoding="utf-8")
    assert b"plotly.js v" in gzip.decompress(base64.b64decode(base64_of(html)))[:200]
    assert len(html) < 3_000_000


def test_samples_are_text_and_nothing_else(tmp_path: Path) -> None:
    page = load(write_run(tmp_path))
    shown = page.all("pre")[-1]  # newest first
    assert shown.startswith("\n</script><script>alert(1)</script>\n</pre><img src=x onerror=")
    assert shown.endswith("<!-- ␀␛[31m␍\\u009b \\u202e \U0001f600 \u2028 é &amp; {{ 7 * 7 }}")
    assert page.all("script")[-1].lstrip().startswith('"use strict"')
    assert sum(tag == "script" for tag, _ in page.tags) == 3
    assert "img" not in [tag for tag, _ in page.tags]


def test_names_and_keys_are_escaped_too(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(json.dumps({"name": NASTY, NASTY: {NASTY: NASTY}}))
    (tmp_path / "environment.json").write_text(json.dumps({"command": NASTY}))
    (tmp_path / "result.json").write_text(json.dumps({"status": NASTY, "val_loss": "<b>"}))
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1, NASTY: 2.0}))
    page = load(tmp_path)
    assert not page.problems
    assert sum(tag == "script" for tag, _ in page.tags) == 3
    assert not {"img", "b"} & {tag for tag, _ in page.tags}
    assert NASTY in curves(page)["columns"]


def test_configuration_and_environment_are_complete(tmp_path: Path) -> None:
    page = load(write_run(tmp_path))
    text = leaves_of(page)
    assert text["optimizer.weight_decay"] == "0.1"
    assert text["model.attention.num_kv_heads"] == "null"
    assert text["tokenizer.special_tokens"] == '["<|endoftext|>"]'
    assert text["seed"] == "0"
    assert text["packages.torch"] == "2.11.0"
    assert len(text) == count_leaves(CONFIG) + count_leaves(ENVIRONMENT)


def leaves_of(page: Page) -> dict[str, str]:
    """Return name and value of the rows of the nested tables: a heading with one cell behind it."""
    cells = [(tag, text) for tag, _, text in page.texts if tag in ("th", "td")]
    pairs = zip(cells, [*cells[1:], ("th", "")], strict=True)
    leaves = {name: value for (a, name), (b, value) in pairs if (a, b) == ("th", "td")}
    del leaves["bits per byte"]  # the last column of the validation table
    return leaves


def count_leaves(mapping: dict[str, Any]) -> int:
    return sum(count_leaves(v) if isinstance(v, dict) else 1 for v in mapping.values())


def test_the_validation_table_has_every_evaluation(tmp_path: Path) -> None:
    html = write_report(write_run(tmp_path)).read_text(encoding="utf-8")
    table = html.split('class="numbers"')[1].split("</table>")[0]
    assert table.count("<tr>") == 1 + sum("val/loss" in row for row in metrics())


def test_damaged_lines_are_admitted(tmp_path: Path) -> None:
    write_run(tmp_path)
    path = tmp_path / "metrics.jsonl"
    path.write_text("{broken\n" + path.read_text())
    assert "1 unreadable line of metrics.jsonl left out." in load(tmp_path).all("p")


def test_a_failing_write_leaves_the_old_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = write_report(write_run(tmp_path)).read_text()

    def fail() -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report, "plotly", fail)
    with pytest.raises(OSError, match="No space"):
        write_report(tmp_path)
    assert (tmp_path / "report.html").read_text() == before


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (0, "0"),
        (9999, "9,999"),
        (12_345, "12.3 k"),
        (124e6, "124 M"),
        (6.2e21, "6.2 Z"),
    ],
)
def test_counts(value: float | None, shown: str) -> None:
    assert page.count(value) == shown.replace(" ", "\u202f")


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, "–"), (0.74, "0.74 s"), (59.4, "59.4 s"), (60, "1 min 00 s"), (7260, "2 h 01 min")],
)
def test_durations(seconds: float | None, shown: str) -> None:
    assert page.duration(seconds).replace("\u202f", " ") == shown


def test_nan_in_the_result_is_shown_as_missing(tmp_path: Path) -> None:
    write_run(tmp_path)
    (tmp_path / "result.json").write_text(json.dumps({"status": "diverged", "val_loss": math.nan}))
    page = load(tmp_path)
    assert dict(zip(page.all("dt"), page.all("dd"), strict=True))["Validation loss"][0] == "–"
