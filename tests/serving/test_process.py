"""The commands, as processes."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests_support import ROOT

CLI = [sys.executable, "-m", "lmlab.cli"]


def lmlab(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    command = [*CLI, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("command", ["serve", "play"])
def test_a_signal_stops_the_server(command: str, number: signal.Signals, trained: Path) -> None:
    more = ["--no-browser"] if command == "play" else []
    process = subprocess.Popen(
        [*CLI, command, str(trained), "--port", "0", *more],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(4)]
    assert lines[0].startswith("lines: step 120, ")
    url = lines[1].split()[1]
    with urllib.request.urlopen(f"{url}health", timeout=30) as answer:
        assert json.load(answer)["status"] == "ok"
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "")


def test_a_port_in_use_is_one_line(trained: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = lmlab("serve", trained, "--port", port)
    assert done.returncode == 1
    assert done.stderr == f"lmlab: port {port} is in use; stop the other server or give --port\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere does not exist"),
        (["."], "is not a run directory"),
        (["RUN", "--port", "99999"], "--port: must be an integer from 0 to 65535, got 99999"),
        (["RUN", "--max-batch", "0"], "--max-batch: must be an integer of at least 1, got 0"),
        (["RUN", "--host", "no.such.host.invalid"], "--host no.such.host.invalid: "),
        (["RUN", "--host", "192.0.2.1"], "cannot listen on 192.0.2.1"),
        (["RUN", "--allow-origin", "*"], "--allow-origin must be like"),
        (["RUN", "--chat-template", "nothing.jinja"], "nothing.jinja"),
        (["RUN", "--device", "tpu"], "device 'tpu'"),
        ([], "arguments are required: RUN"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], message: str, trained: Path, tmp_path: Path
) -> None:
    given = [str(trained) if a == "RUN" else a for a in arguments]
    port = [] if "--port" in given else ["--port", "0"]
    done = lmlab("serve", *given, *port, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr


def test_without_the_extra_the_command_names_it(trained: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "sitecustomize.py"
    blocked.write_text(
        "import importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'uvicorn' else find(name, *a)\n"
    )
    path = os.pathsep.join([str(tmp_path), str(ROOT / "src")])
    done = lmlab("serve", trained, env=os.environ | {"PYTHONPATH": path})
    assert done.returncode == 1
    assert done.stderr == (
        "lmlab: serving needs starlette and uvicorn: pip install 'lmlab[serve]'\n"
    )


def test_a_server_that_others_can_reach_warns(trained: Path) -> None:
    process = subprocess.Popen(
        [*CLI, "serve", str(trained), "--port", "0", "--host", "0.0.0.0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    for _ in range(4):
        process.stdout.readline()
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert err.startswith("lmlab: warning: others can reach this server at 0.0.0.0 without a key")
