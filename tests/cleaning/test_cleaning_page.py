"""The page of a run, in a real browser. Skipped where no Chromium is installed."""

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from corpus import config, documents, write_corpus

from browser import CHROMIUM, look
from lmlab.cleaning.page import write_page
from lmlab.cleaning.run import clean
from lmlab.errors import UserError

PROBE = """
<script>
(async () => {
  const wait = () => new Promise((resolve) => setTimeout(resolve, 100));
  while (!document.body.dataset.drawn) await wait();
  const read = () => JSON.parse(document.body.dataset.change);
  const bound = (name) => Array.from(document.querySelectorAll("input[type=number]"))
    .find((input) => input.ariaLabel.startsWith(name));
  const outcome = document.getElementById("outcome");
  const seen = { start: read(), histograms: document.querySelectorAll(".histogram").length };
  const words = bound("gopher.words at least");
  words.value = "1"; words.dispatchEvent(new Event("input"));
  seen.loose = read();
  words.value = "100"; words.dispatchEvent(new Event("input"));
  seen.strict = read();
  outcome.value = "would change with these thresholds"; outcome.dispatchEvent(new Event("change"));
  seen.would = document.querySelectorAll(".document").length;
  seen.command = document.getElementById("command").textContent;
  document.getElementById("reset").click();
  seen.reset = read();
  seen.outcomes = Array.from(outcome.options, (option) => option.value);
  outcome.value = "gopher: ellipsis_lines"; outcome.dispatchEvent(new Event("change"));
  seen.marks = Array.from(document.querySelectorAll("mark"), (mark) => mark.textContent);
  seen.shown = document.querySelectorAll(".document").length;
  seen.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  seen.problem = false;
  parent.postMessage(JSON.stringify(seen), "*");
})();
</script>
"""


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    inputs = write_corpus(folder / "in", files=2)
    lines = ["He said \U0001f600 the market and the river are with that..."] * 12 + [
        "The morning of the harbour is to be with you."
    ]
    row = {"text": "\n".join(lines), "url": "https://example.com/<script>"}
    (inputs / "more.jsonl").write_text("{broken\n" + json.dumps(row) + "\n")
    clean(config(inputs, folder / "out", "executor.workers=1"), progress=False)
    return folder / "out"


def page_data(page: Path) -> dict[str, Any]:
    html = page.read_text(encoding="utf-8")
    found = re.search(r'id="cleaning-data">(.*?)</script>', html, re.DOTALL)
    assert found
    data: dict[str, Any] = json.loads(unescape(found[1]))
    return data


def test_the_page_holds_scores_of_every_document(result: Path) -> None:
    data = page_data(write_page(result, progress=False))
    kept, removed = documents(result), documents(result, "removed")
    assert len(data["removed"]) == len(kept) + len(removed)
    assert data["removed"].count(-1) == len(kept)
    words = [c["score"] for c in data["criteria"]].index("gopher.words")
    expected = [document.scores["gopher.words"] for document in (*kept, *removed)]
    assert sorted(data["scores"][words]) == sorted(expected)
    html = (result / "report.html").read_text(encoding="utf-8")
    assert "no JSON object" in html  # what was passed over
    assert "<script>" not in html.split("cleaning-data")[1].split("</script>")[0]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
@pytest.mark.parametrize("width", [1200, 390])
def test_thresholds_replay_and_documents_are_marked(result: Path, width: int) -> None:
    seen = look(write_page(result, progress=False), PROBE, width)
    kept, removed = documents(result), documents(result, "removed")
    assert seen["start"] == seen["reset"] == {"leave": 0, "back": 0}
    assert seen["histograms"] >= 4
    short = [d for d in removed if d.removal is not None and d.removal.reason == "words"]
    assert seen["loose"] == {"leave": 0, "back": len(short)}
    assert seen["strict"] == {
        "leave": sum(document.scores["gopher.words"] < 100 for document in kept),
        "back": 0,
    }
    assert seen["would"] == min(seen["strict"]["leave"], 10)
    assert seen["command"].endswith("cleaning.steps.gopher.min_words=100")
    assert {"kept", "gopher: words", "minhash: duplicate"} <= set(seen["outcomes"])
    assert seen["shown"] == 1
    assert len(seen["marks"]) == 12
    assert all(mark.startswith("He said") and mark.endswith("...") for mark in seen["marks"])


def test_a_run_that_has_not_finished_has_no_page(result: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no cleaning run"):
        write_page(tmp_path, progress=False)
    (tmp_path / "job.json").write_bytes((result / "job.json").read_bytes())
    with pytest.raises(UserError, match="has not finished"):
        write_page(tmp_path, progress=False)
