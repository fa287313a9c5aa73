"""The Triton kernels without a GPU: in the interpreter, and compiled ahead, in child processes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")
HERE = Path(__file__).parent
COMPILE = [sys.executable, "-m", "lmlab.cli", "kernels", "compile"]


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    return subprocess.run(
        command, env=kept | environment, capture_output=True, text=True, timeout=500
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["test_triton.py", "test_triton_training.py"])
def test_kernels_equal_their_definitions_in_the_interpreter(name: str) -> None:
    done = run(
        *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-W", "ignore"),
        str(HERE / name),
        TRITON_INTERPRET="1",
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None, done.stdout
    assert int(passed[1]) >= 1


@pytest.mark.slow
def test_kernels_compile_for_gpus_that_are_not_there() -> None:
    """None spills, all products use tensor cores, and no wgmma is serialised."""
    done = run(*COMPILE)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split(" | ") for line in done.stdout.splitlines()[2:]]
    assert {row[1] for row in rows} == {"sm_80", "sm_90", "sm_100"}
    for name, target, threads, registers, spilled, *_, instructions, problems in rows:
        assert 0 < int(registers) <= min(255, 65536 // int(threads.replace(",", ""))), name
        assert int(spilled) == 0
        assert problems == "- |"
        if "matrix product" in name or re.search(r"attention (forward|d).*bf16", name, re.I):
            kind = {"sm_80": "mma", "sm_90": "wgmma", "sm_100": "tcgen05"}[target]
            assert name.startswith("| attention D,") or kind in instructions, (name, target)


def test_a_kernel_that_spills_is_found() -> None:
    code = """
from dataclasses import replace
from lmlab.kernels.compile_ahead import compile_one
from lmlab.kernels.kernel_list import compilations
kernel = next(c for c in compilations(90) if "dK dV, bf16 d=128" in c.name)
large = replace(kernel, constants=kernel.constants | {"BLOCK_M": 64, "BLOCK_N": 64},
                launch={"num_warps": 4, "num_stages": 1}, uses_tensor_cores=True)
print(compile_one(large, 90).problems())
"""
    done = run(sys.executable, "-c", code)
    assert "spills" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("pattern", "message"), [("(", "is no regular expression"), ("absent", "matches no kernel")]
)
def test_a_wrong_pattern_is_refused(pattern: str, message: str) -> None:
    done = run(*COMPILE, "--only", pattern)
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_compiling_in_the_interpreter_is_refused() -> None:
    done = run(*COMPILE, TRITON_INTERPRET="1")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "lmlab: TRITON_INTERPRET=1 interprets kernels instead of compiling; unset it\n"
    )
