from pathlib import Path

import pytest


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """A file of examples of two labels, wiki and cc."""
    path = tmp_path / "examples.txt"
    good = [
        "the history of the river",
        "a species of plant in the north",
        "she was born in the town",
    ]
    bad = ["buy now free shipping", "click here to subscribe", "log in to add to cart"]
    with path.open("w") as file:
        for i in range(120):
            file.write(f"__label__wiki {good[i % 3]} and page {i}\n")
            file.write(f"__label__cc {bad[i % 3]} and page {i}\n")
    return path
