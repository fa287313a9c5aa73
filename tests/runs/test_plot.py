import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
from fake_run import CONFIG, metrics, write_run
from matplotlib.image import imread

from lmlab.runs.plot import TRAIN, VALIDATION, write_loss_plot


def pixels(path: Path, colour: str) -> int:
    """Count the pixels of exactly this colour."""
    image = np.rint(imread(path)[..., :3] * 255).astype(int)
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((image == wanted).all(axis=-1).sum())


def test_the_picture_shows_both_curves(tmp_path: Path) -> None:
    path = write_loss_plot(write_run(tmp_path))
    assert path == tmp_path / "loss.png"
    height, width = imread(path).shape[:2]
    assert (width, height) == (1536, 640)
    assert pixels(path, TRAIN) > 1000
    assert pixels(path, VALIDATION) > 1000


def test_without_validation_there_is_no_validation_curve(tmp_path: Path) -> None:
    rows = [row for row in metrics() if "val/loss" not in row]
    path = write_loss_plot(write_run(tmp_path, rows))
    assert pixels(path, TRAIN) > 1000
    assert pixels(path, VALIDATION) == 0


def test_every_state_of_a_run_can_be_drawn(any_run: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        path = write_loss_plot(any_run)
    image = imread(path)
    assert image.std() > 0.01
    assert not [path for path in any_run.iterdir() if path.suffix == ".tmp"]


def test_a_dollar_sign_in_a_name_is_no_formula(tmp_path: Path) -> None:
    write_run(tmp_path)
    (tmp_path / "config.yaml").write_text(f"name: $\\frac$ {CONFIG['name']}\n")
    assert write_loss_plot(tmp_path).stat().st_size > 10_000


def test_pyplot_stays_out_of_it(tmp_path: Path) -> None:
    write_run(tmp_path)
    code = (
        "import sys; from pathlib import Path; from lmlab.runs.plot import write_loss_plot;"
        "assert 'matplotlib' not in sys.modules;"
        f"write_loss_plot(Path({str(tmp_path)!r}));"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
