"""Compiles the Triton kernels for GPUs that are not there, and reads what they need.

A kernel has a problem when it spills registers, lacks tensor-core instructions, or has wgmma
instructions that ptxas serialised. No GPU and no driver are needed. Importing it needs triton.
"""

import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from lmlab.kernels.kernel_list import Compilation, compilations

SHARED_MEMORY = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}
"""Bytes of shared memory that a block may use, by compute capability without its dot."""
REGISTERS = 65536
"""Registers that the threads of a block share."""
_TENSOR_CORE = re.compile(r"\b(?:mma\.sync|wgmma\.mma_async|tcgen05\.mma)\b")


@dataclass(frozen=True)
class Compiled:
    """What a kernel needs on one architecture."""

    name: str
    target: int
    registers: int
    """Of a thread."""
    threads: int
    """Of a block."""
    spilled: int
    """Bytes of spill stores and loads of a thread."""
    shared: int
    """Bytes of shared memory of a block."""
    tensor_core: tuple[str, ...]
    """Kinds of matrix instructions in the PTX."""
    serialised: bool
    """Whether ptxas serialised the wgmma instructions."""
    uses_tensor_cores: bool
    """Whether the kernel is to have matrix instructions."""

    def problems(self) -> list[str]:
        """Return what makes the kernel slow or impossible to launch; empty: nothing."""
        found = []
        if self.spilled:
            found.append(f"spills {self.spilled} bytes")
        if self.registers * self.threads > REGISTERS:
            found.append(f"needs {self.registers * self.threads:,} registers")
        if self.shared > SHARED_MEMORY[self.target]:
            found.append(f"needs {self.shared:,} bytes of shared memory")
        if self.uses_tensor_cores and not self.tensor_core:
            found.append("has no tensor-core instruction")
        if self.serialised:
            found.append("has serialised wgmma instructions")
        return found


def compile_one(compilation: Compilation, target: int) -> Compiled:
    """Compile a kernel for a compute capability (80, 90, 100) and read what it needs."""
    kernel, names = compilation.kernel, compilation.kernel.arg_names
    constants = {(names.index(name),): value for name, value in compilation.constants.items()}
    signature = {
        name: "constexpr" if name in compilation.constants else compilation.types[name]
        for name in names
    }
    aligned = [["tt.divisibility", 16]]
    attributes: dict[Any, Any] = {
        (i,): aligned for i, name in enumerate(names) if signature[name].startswith("*")
    }
    attributes |= {(names.index(name),): aligned for name in compilation.aligned}
    source = ASTSource(kernel, signature=signature, constexprs=constants, attrs=attributes)
    built = triton.compile(source, target=GPUTarget("cuda", target, 32), options=compilation.launch)
    ptx = built.asm["ptx"]
    assert isinstance(ptx, str)
    registers, spilled, serialised = _assemble(ptx, target)
    return Compiled(
        name=compilation.name,
        target=target,
        registers=registers,
        threads=32 * built.metadata.num_warps,
        spilled=spilled,
        shared=built.metadata.shared,
        tensor_core=tuple(sorted(set(_TENSOR_CORE.findall(ptx)))),
        serialised=serialised,
        uses_tensor_cores=compilation.uses_tensor_cores,
    )


def table(rows: Iterable[Compiled]) -> str:
    """Return the rows as a markdown table."""
    sizes = ("threads", "registers", "spilled (B)", "shared (B)")
    lines = [
        f"| kernel | target | {' | '.join(sizes)} | tensor cores | problems |",
        f"| --- | --- | {'---: | ' * len(sizes)}--- | --- |",
    ]
    for row in rows:
        numbers = (row.threads, row.registers, row.spilled, row.shared)
        cells = (
            *(row.name, f"sm_{row.target}", *(f"{number:,}" for number in numbers)),
            *(", ".join(row.tensor_core) or "-", "; ".join(row.problems()) or "-"),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _assemble(ptx: str, target: int) -> tuple[int, int, bool]:
    """Return registers of a thread, bytes it spills, and whether wgmma was serialised."""
    architecture = re.findall(r"^\.target (\w+)", ptx, re.MULTILINE)[0]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.ptx"
        path.write_text(ptx)
        command = [_ptxas(target), "-v", f"--gpu-name={architecture}", str(path)]
        done = subprocess.run(
            [*command, "-o", str(path.with_suffix(".cubin"))], capture_output=True, text=True
        )
    said = done.stderr + done.stdout
    used = re.search(r"Used (\d+) registers", said)
    if done.returncode or used is None:
        raise RuntimeError(f"ptxas failed: {said}")
    spills = re.findall(r"(\d+) bytes spill (?:stores|loads)", said)
    return int(used[1]), sum(map(int, spills)), "wgmma" in said and "serialized" in said


def _ptxas(target: int) -> str:
    folder = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    blackwell = folder / "ptxas-blackwell"
    return str(blackwell if target >= 100 and blackwell.exists() else folder / "ptxas")


def compile_all(targets: Iterable[int], pattern: re.Pattern[str]) -> Iterator[Compiled]:
    """Compile the kernels whose name matches the pattern, for each target."""
    for target in targets:
        for compilation in compilations(target):
            if pattern.search(compilation.name):
                yield compile_one(compilation, target)
