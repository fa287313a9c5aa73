"""`lmlab profile` of a tiny model: what the trace and the page hold, and mistakes."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from lmlab.cli import main
from lmlab.config import RunConfig
from lmlab.layout import CONFIG
from lmlab.model import build
from lmlab.profiling.analysis import Analysis, analyse
from lmlab.profiling.page import write_page
from lmlab.profiling.profile import record
from lmlab.profiling.ranges import PRODUCT, SCORES, SOFTMAX, named_ranges
from lmlab.profiling.steps import training_step
from lmlab.profiling.trace import Trace, read_trace
from lmlab.training.watch import profiled
from tests_support import TINY, composed

EAGER = "model.attention.backend=eager"
PARTS = {"embedding", "attention", "feed-forward", "norm", "output head", "loss", "optimizer"}


@pytest.fixture(scope="module")
def eager() -> RunConfig:
    return composed(*TINY, EAGER)


@pytest.fixture(scope="module")
def folder(eager: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the profile of two steps."""
    directory = tmp_path_factory.mktemp("profile") / "made"
    record(eager, 300, 2, directory)
    write_page(directory / "trace.json", directory)
    return directory


@pytest.fixture(scope="module")
def trace(folder: Path) -> Trace:
    return read_trace(folder / "trace.json")


@pytest.fixture(scope="module")
def analysis(trace: Trace) -> Analysis:
    return analyse(trace)


def test_every_range_is_in_the_trace_as_often_as_it_runs(trace: Trace) -> None:
    counts: dict[str, int] = {}
    for each in trace.ranges:
        counts[each.name] = counts.get(each.name, 0) + 1
    steps, layers = 2, 2
    assert counts["step"] == counts["forward"] == counts["optimizer"] == steps
    assert counts["backward"] == steps
    for name in ("attention", "feed-forward", SCORES, SOFTMAX, PRODUCT):
        assert counts[name] == steps * layers, name
    assert counts["norm"] == steps * (2 * layers + 1)
    assert counts["block 0"] == counts["block 1"] == steps


def test_the_steps_of_attention_hold_what_they_are_named_for(trace: Trace) -> None:
    """Two matrix products outside of each other, and the exponential in the softmax."""
    inside: dict[str, set[str]] = {SCORES: set(), SOFTMAX: set(), PRODUCT: set()}
    for name, names in inside.items():
        for each in (r for r in trace.ranges if r.name == name):
            assert each.parent is not None
            assert each.parent.name == "attention"
            names |= {o.name for o in trace.operators if each.begin <= o.begin < each.end}
    assert "aten::bmm" in inside[SCORES]
    assert "aten::bmm" in inside[PRODUCT]
    assert "aten::exp" in inside[SOFTMAX]
    assert not {"aten::bmm"} & inside[SOFTMAX]


def test_parts_have_forward_and_backward_time(analysis: Analysis) -> None:
    rows = {row.name: row for row in analysis.ranges}
    assert rows.keys() >= PARTS | {SCORES, SOFTMAX, PRODUCT}
    for name in (SCORES, SOFTMAX, PRODUCT, "attention", "feed-forward", "norm", "output head"):
        assert 0 < rows[name].backward < rows[name].seconds, name
    assert rows["optimizer"].backward == 0
    assert sum(row.share for row in analysis.ranges) == pytest.approx(1)
    assert 0.2 < analysis.busy <= 1


def test_gradients_of_the_weights_are_found(analysis: Analysis, eager: RunConfig) -> None:
    """At the end of the step what is left are the gradients, within the allocator's rounding."""
    model = build(eager.model, 300, device="meta")
    expected = sum(p.numel() * 4 for p in model.parameters())
    assert analysis.memory is not None
    left = analysis.memory.series["gradients"][-1]
    assert expected <= left < 1.1 * expected
    assert analysis.memory.peak == sum(size for _, _, size in analysis.memory.holders)
    assert {kind for kind, _, _ in analysis.memory.holders} >= {"activations"}


def test_the_hooks_are_gone_afterwards_and_change_no_result(eager: RunConfig) -> None:
    step = training_step(eager, 300)
    (ids, targets) = step.batch
    before = step.objective(ids, targets)[0]
    with named_ranges(step.model):
        inside = step.objective(ids, targets)[0]
    assert torch.equal(before, inside)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in step.model.modules())


def test_the_page_needs_no_network(folder: Path) -> None:
    page = (folder / "profile.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in page
    for text in (*PARTS, SCORES, "What holds the peak", "Outside of operators", "aten::mul"):
        assert text in page, text
    assert "fused operators" not in page
    facts = json.loads((folder / "profile.json").read_text())
    assert facts["tokens"] == 4 * 32
    assert facts["state_bytes"]["optimizer state"] > facts["state_bytes"]["weights"]


chromium = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.mark.skipif(chromium is None, reason="no browser")
def test_the_page_draws_its_charts_in_a_browser(folder: Path) -> None:
    assert chromium is not None
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000"]
    profile = f"--user-data-dir={folder / 'browser'}"
    command = [chromium, *options, profile, "--enable-logging=stderr", "--dump-dom"]
    page = (folder / "profile.html").as_uri()
    done = subprocess.run([*command, page], capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr, done.stderr
    assert done.stdout.count('class="main-svg"') >= 2


def run(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = main(list(arguments))
    out, err = capsys.readouterr()
    return code, out, err


def test_a_run_directory_and_a_trace_are_profiled(
    tmp_path: Path, eager: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / CONFIG).write_text(eager.to_yaml())
    code, out, _ = run("profile", str(tmp_path), "--steps", "1", capsys=capsys)
    assert code == 0
    assert SOFTMAX in out
    trace = tmp_path / "profile" / "trace.json"
    other = tmp_path / "other"
    code, again, _ = run("profile", str(trace), "--output", str(other), capsys=capsys)
    assert code == 0
    assert out.splitlines()[0] == again.splitlines()[0]
    assert (other / "profile.html").exists()


def test_fused_attention_says_how_to_see_its_steps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [*TINY, "model.attention.backend=sdpa", "trainer.micro_batch_size=2"]
    code, out, _ = run("profile", *given, "--steps", "1", "--output", str(tmp_path), capsys=capsys)
    assert code == 0
    assert SOFTMAX not in out
    assert "model.attention.backend=eager to see" in (tmp_path / "profile.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere is not a run directory"),
        (["nowhere", "lr=1"], "profiled as it is"),
        (["trace.json"], "No such file or directory: trace.json"),
        (["trace.json", "lr=1"], "give it without --steps and KEY=VALUE"),
        (["--steps", "2", "trace.json"], "give it without --steps and KEY=VALUE"),
        (["--steps", "1", "model=tiny", "model.attention.backend=triton"], "'triton'"),
        (["model.vocab_size=100", "tokenizer=byte"], "100 is less than the tokenizer's 257"),
        (["task=grpo"], "grpo"),
        (["--steps", "0"], "--steps must be 1 or more, got 0"),
        (["model=smal"], "smal"),
        (["trainer.device=cuda:77"], "trainer.device"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = run("profile", *arguments, capsys=capsys)
    assert code == 1
    assert message in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_loop_names_its_phases(eager: RunConfig) -> None:
    """Also the traces of trainer.profile_steps have them."""
    step = training_step(eager, 300)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        step()
    names: list[Any] = [event.name for event in profile.events() or []]
    assert [names.count(name) for name in ("forward", "backward", "optimizer")] == [1, 1, 1]


def test_a_trace_of_the_training_loop_is_analysed(eager: RunConfig, tmp_path: Path) -> None:
    step = training_step(eager, 300)
    with profiled(2, tmp_path, lambda _: None) as hook:
        for _ in range(7):
            step()
            hook(False)
    a = analyse(read_trace(tmp_path / "trace.json"))
    assert a.steps == 2
    assert [row.name for row in a.phases] == ["forward", "backward", "optimizer"]
    assert [row.calls for row in a.phases] == [1, 1, 1]
    assert a.memory is None
