"""The built wheel: what it holds, and that it trains in a folder without a checkout."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests_support import ROOT

pytestmark = pytest.mark.slow
SMALL = ("model.num_layers=1", "model.d_model=32", "model.context_length=32", "budget.steps=3")


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    return subprocess.run(
        list(map(str, command)), cwd=cwd, capture_output=True, text=True, env=environment
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel, in a build folder of its own."""
    folder = tmp_path_factory.mktemp("wheel")
    built = run(
        sys.executable, "-m", "pip", "wheel", ROOT, "--no-deps", "-w", folder,
        "-C", f"build-dir={folder / 'build'}", cwd=folder,
    )  # fmt: skip
    if built.returncode:
        pytest.skip(f"pip cannot build the wheel: {built.stderr.strip().splitlines()[-1]}")
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the Python of an environment with the wheel, and this one's other packages."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder)
    (site,) = folder.glob("lib/python*/site-packages")
    zipfile.ZipFile(wheel).extractall(site)
    # a path named by a .pth file is searched last, and its own .pth files are not read
    paths = {sysconfig.get_path(name) for name in ("purelib", "platlib")}
    paths |= {path for path in sys.path if path.endswith("site-packages")}
    (site / "others.pth").write_text("\n".join(sorted(paths)))
    return folder / "bin" / "python"


def test_the_wheel_holds_what_it_needs(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("conf", "experiments", "sweeps"):
        files = {f"lmlab/configs/{path.relative_to(ROOT)}" for path in ROOT.glob(f"{folder}/**/*")
                 if path.suffix == ".yaml"}  # fmt: skip
        assert files
        assert files <= names
    page = ROOT / "src" / "lmlab" / "serving" / "page"
    assert {f"lmlab/serving/page/{path.name}" for path in page.iterdir()} <= names
    surplus = (".png", ".md", ".cpp", ".hpp", ".pt", ".jsonl", ".pyc")
    assert [name for name in names if name.endswith(surplus)] == []


def test_it_trains_in_an_empty_folder(python: Path, tmp_path: Path) -> None:
    lmlab = (python, "-m", "lmlab.cli")
    where = run(python, "-c", "import lmlab; print(lmlab.__file__)", cwd=tmp_path).stdout
    assert where.startswith(str(python.parents[1])), where
    shown = run(*lmlab, "train", "--cfg", "job", cwd=tmp_path)
    assert (shown.returncode, shown.stderr) == (0, "")
    refused = run(*lmlab, "train", "experiment=nope", cwd=tmp_path)
    assert refused.returncode == 1
    assert "'architectures/llama'" in refused.stderr
    assert list(tmp_path.iterdir()) == []
    text = "".join(f"line {i} of a text to learn from\n" for i in range(400))
    (tmp_path / "input.txt").write_text(text)
    done = run(
        *lmlab, "train", "data=text", "data.paths=[input.txt]", "tokenizer=byte", *SMALL,
        "trainer.eval_windows=2", "task.sample.tokens=4", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("runs/default/*/result.json"))) == 1
