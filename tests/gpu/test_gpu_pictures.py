"""Pictures of the calculators: what is in them can be read."""

import contextlib
import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lmlab.cli import main
from lmlab.figures import picture
from lmlab.gpu import plots


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Return a function that draws with a command of `lmlab gpu` and returns the axes."""
    kept: list[Any] = []

    @contextlib.contextmanager
    def keeping(*args: Any, **kwargs: Any) -> Iterator[Any]:
        with picture(*args, **kwargs) as panels:
            yield panels
        kept[:] = panels

    def draw(command: str) -> Any:
        line = ["gpu", *shlex.split(command), "--plot", str(tmp_path / "a.png")]
        assert main(line) == 0
        return kept[0]

    monkeypatch.setattr(plots, "picture", keeping)
    return draw


def overlapping(texts: list[Any]) -> list[tuple[str, str]]:
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
    return [(a, b) for (a, one), (b, other) in itertools.combinations(boxes, 2)
            if one.overlaps(other)]  # fmt: skip


@pytest.mark.parametrize(
    "command",
    [
        "roofline model=large --phase decode --batch 1",
        "roofline model=small",
        "roofline model=small --phase prefill",
        "roofline model=tiny --batch 1 --tokens 8",
        "roofline --matmul 8 8 8",
    ],
)
def test_every_operation_has_its_number_beside_a_dot(command: str, drawn: Any) -> None:
    panel = drawn(command)
    legend = [text.get_text() for text in panel.get_legend().get_texts()]
    numbers = [text for text in panel.texts if re.fullmatch(r"[\d, \n]+", text.get_text())]
    found = [n for text in numbers for n in re.split(r", |\n", text.get_text())]
    assert sorted(map(int, found)) == list(range(1, len(legend) + 1))
    assert [entry.split()[0] for entry in legend] == sorted(found, key=int)
    assert overlapping(numbers) == []


def test_operations_in_one_dot_share_its_colour(drawn: Any) -> None:
    panel = drawn("roofline model=large --phase decode --batch 1")
    dots = [line for line in panel.lines if line.get_label()[0].isdigit()]
    colours = {line.get_label().split("  ")[1].split(" (")[0]: line.get_color() for line in dots}
    assert colours["attention"] == colours["output head"] == colours["activations"]
    assert colours["norms"] == colours["final norm"]
    assert len(set(colours.values())) == 4


@pytest.mark.parametrize(
    "sizes",
    [
        "1792 1793",
        "256 512 1000 1500 1792 1793 2000 2500 3000 4000",
        "1 2 3 4 5 6 7 8",
        "1",
        "100 100000",
    ],
)
def test_labels_of_waves_do_not_overlap(sizes: str, drawn: Any) -> None:
    panel = drawn(f"waves {sizes}")
    assert panel.texts
    assert overlapping(panel.texts) == []
    inside = panel.get_window_extent().padded(2)
    for text in panel.texts:
        box = text.get_window_extent()
        assert inside.contains(box.x0, box.y0)
        assert inside.contains(box.x1, box.y1)


def test_two_sizes_are_both_labelled(drawn: Any) -> None:
    labels = [text.get_text() for text in drawn("waves 1792 1793").texts]
    assert labels == ["1792: 98 tiles, 1 wave", "1793: 120 tiles, 2 waves"]


def test_a_long_title_is_broken(drawn: Any) -> None:
    panel = drawn("roofline model=small model.attention.qk_norm=true model.norm_placement=double "
                  "model.tie_embeddings=true model.attention.num_kv_heads=4")  # fmt: skip
    title = panel.figure._suptitle.get_window_extent()
    assert title.x1 <= panel.figure.bbox.x1
