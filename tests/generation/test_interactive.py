"""The interactive mode, with written input and on a real pseudo-terminal."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import lmlab
from lmlab.generation.engine import Engine
from lmlab.generation.history import history_file, line_editing
from lmlab.generation.interactive import Session
from lmlab.generation.options import Options

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture(scope="module")
def run(trained: Path) -> lmlab.TrainedRun:
    return lmlab.load(trained)


def session(run: lmlab.TrainedRun, *lines: str | type[BaseException]) -> Session:
    """Return a session after these lines; a class is raised where it stands."""
    entered = iter(lines)

    def read(prompt: str) -> str:
        line = next(entered, EOFError)
        if isinstance(line, str):
            print(f"{prompt}{line!a:.60}")
            return line
        raise line

    options = Options(max_new_tokens=6, seed=1)
    made = Session(Engine(run.model, run.tokenizer, max_batch=1), options, read)
    made.run("a banner")
    return made


def continued(run: lmlab.TrainedRun, text: list[int], seed: int, count: int = 6) -> list[int]:
    """Return a text with a continuation, as the engine makes it of the whole text."""
    engine = Engine(run.model, run.tokenizer, max_batch=1)
    generation = engine.submit(text, Options(max_new_tokens=count, seed=seed))
    for _ in engine.run():
        pass
    return text + generation.tokens


def test_a_text_grows_by_turns(run: lmlab.TrainedRun, capsys: Captured) -> None:
    made = session(run, "the sea", "", "/continue", " and")
    text = list(b"the sea")
    for seed, new in ((1, b""), (2, b""), (3, b""), (4, b" and")):
        text = continued(run, text + list(new), seed)
    assert made.text == text
    assert made.options.seed == 5
    out = capsys.readouterr().out
    assert "13 tokens> ''\n" in out
    assert "[6 tokens, seed 1, " in out


def test_lines_that_end_in_a_backslash_go_on(run: lmlab.TrainedRun, capsys: Captured) -> None:
    made = session(run, "the\\", "red\\", "sun", "//sea")
    first = continued(run, list(b"the\nred\nsun"), 1)
    assert made.text == continued(run, first + list(b"/sea"), 2)
    assert "... 'sun'\n" in capsys.readouterr().out


def test_retry_reset_and_settings(run: lmlab.TrainedRun, capsys: Captured) -> None:
    made = session(run, "moon", "/retry")
    assert made.text == continued(run, list(b"moon"), 2)
    made = session(run, "moon", "/reset", "/seed 9", "/set max-new-tokens 3", "sun")
    assert made.text == continued(run, list(b"sun"), 9, count=3)
    session(run, "/set", "/help", "/quit", "never read")
    out = capsys.readouterr().out
    assert "max_new_tokens = 6\nmin_new_tokens = 0\ntemperature = 1.0\n" in out
    assert "/retry" in out
    assert "never read" not in out


def test_mistakes_are_said_and_the_session_goes_on(run: lmlab.TrainedRun, capsys: Captured) -> None:
    lines = ("/heat 3", "/temperature -1", "/set heat 1", "/set top_k", "/retry", "caf\udce9")
    made = session(run, *lines, KeyboardInterrupt, "sun")
    assert made.text == continued(run, list(b"sun"), 1)
    out = capsys.readouterr().out
    for text in (
        "unknown command /heat; /help lists them",
        "temperature must be a number of at least 0, got -1.0",
        "unknown setting 'heat'",
        "/set top_k needs a value",
        "there is no continuation to replace",
        "the text is not UTF-8 text at character 3",
        "(Ctrl-D leaves)",
    ):
        assert f"{text}" in out


def test_ends_of_texts(run: lmlab.TrainedRun, capsys: Captured) -> None:
    """A stop text is no part of the text; after the end token a new document begins."""
    whole = run.generate("sun", max_new_tokens=6, seed=1).text
    made = session(run, f"/stop {whole[3]}", "sun")
    assert run.tokenizer.decode(made.text) == "sun" + whole[: whole.index(whole[3])]
    assert "[at a stop text; " in capsys.readouterr().out
    seed = next(s for s in range(2000) if run.generate("sun", seed=s).finish_reason == "stop")
    made = session(run, f"/seed {seed}", "/set max_new_tokens 256", "sun")
    assert made.text == []
    assert "[end of the document, the next text begins a new one; " in capsys.readouterr().out


def test_cropping_is_said_once(run: lmlab.TrainedRun, capsys: Captured) -> None:
    session(run, "x" * 40, "", "")
    assert capsys.readouterr().out.count("only the last 32 tokens before them were read") == 1


def test_the_history_is_kept_where_it_can_be(
    state: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    readline = pytest.importorskip("readline")
    for line in ("one", "two"):
        with line_editing():
            readline.add_history(line)
    assert history_file() == state / "lmlab" / "generate_history"
    assert history_file().read_text().split()[-2:] == ["one", "two"]
    assert history_file().stat().st_mode & 0o77 == 0
    with line_editing():
        assert readline.get_history_item(readline.get_current_history_length()) == "two"
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(file))  # in which nothing can be made
    with line_editing():
        readline.add_history("three")
    assert file.read_text() == ""


class Terminal:
    """A process on a pseudo-terminal."""

    def __init__(self, *arguments: object) -> None:
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lmlab.cli", "generate", *map(str, arguments)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: os.close(os.open(os.ttyname(slave), os.O_RDWR)),  # takes it over
            env=os.environ | {"TERM": "xterm"},
        )
        os.close(slave)
        self.seen = ""

    def type(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def until(self, pattern: str, seconds: float = 120) -> str:
        """Return what was shown since the last call up to a match."""
        end = time.monotonic() + seconds
        while (match := re.search(pattern, self.seen)) is None:
            ready, _, _ = select.select([self.master], [], [], max(0, end - time.monotonic()))
            assert ready, f"no {pattern!r} in {self.seen!r}"
            self.seen += os.read(self.master, 65536).decode(errors="replace")
        shown, self.seen = self.seen[: match.end()], self.seen[match.end() :]
        return shown


@pytest.fixture
def terminal(trained: Path) -> Iterator[Callable[..., Terminal]]:
    started: list[Terminal] = []

    def start(*arguments: object) -> Terminal:
        started.append(Terminal(trained, *arguments))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            os.kill(each.process.pid, signal.SIGKILL)
        each.process.wait()
        os.close(each.master)


def test_on_a_terminal(
    terminal: Callable[..., Terminal], run: lmlab.TrainedRun, state: Path
) -> None:
    screen = terminal("--max-new-tokens", 6, "--dtype", "int8", "--temperature", 0)
    assert "int8 changes the loss" in screen.until("Ctrl-D leaves")
    screen.until("> ")
    screen.type("the sea\n")
    assert "\x1b[1mthe sea\x1b[0m" in screen.until(r"tokens/s\]")
    screen.until("13 tokens> ")
    screen.type("/set max_new_tokens 10000000\n")
    screen.until("13 tokens> ")
    screen.type("sun\n")
    screen.until(r"(?s)sun\x1b\[0m.{20}")
    screen.type("\x03")  # Ctrl-C
    screen.until(r"\[interrupted; ")
    screen.until(r"tokens> ")
    screen.type("half a line")
    screen.until("half a line")
    time.sleep(0.5)  # readline misses a signal that comes while it draws
    screen.type("\x03")
    screen.until(r"\(Ctrl-D leaves\)")
    screen.until(r"tokens> ")
    screen.type("\x1b[A")  # the last line of the history
    screen.until("sun")
    screen.type("\x15\x1b[200~/reset\x1b[201~\n")  # Ctrl-U, and a paste
    screen.until(r"\n(\r|\x1b\[\?2004.)*> ")
    screen.type("\x04")  # Ctrl-D
    assert screen.process.wait(60) == 0
    history = (state / "lmlab" / "generate_history").read_text().splitlines()
    assert history == ["the sea", "/set max_new_tokens 10000000", "sun", "/reset"]


def test_flags_that_need_a_prompt(terminal: Callable[..., Terminal]) -> None:
    screen = terminal("--json")
    screen.until("lmlab: there is no prompt; give --prompt, --prompt-file or standard input")
    assert screen.process.wait(60) == 1
