"""Training of a fastText classifier (Joulin et al. 2016, arXiv:1607.01759), and calibration."""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from lmlab.cleaning.extras import package
from lmlab.cleaning.fasttext import LABEL, load_classifier
from lmlab.cleaning.labelled import Example
from lmlab.errors import UserError
from lmlab.figures import BLUE, FAINT, picture
from lmlab.files import atomic_write

_FLORET_FIELDS = slice(52, 60)
"""floret writes two fields of its own into the header of fastText's format."""

BINS = 10


@dataclass(frozen=True)
class TrainingOptions:
    """Hyperparameters of fastText."""

    epochs: int = 5
    lr: float = 0.5
    dim: int = 100
    word_ngrams: int = 2
    """Longest n-grams of words; more than 1 adds 2,000,000 buckets of n-grams."""
    min_count: int = 1
    """Rarer words are left out."""


@dataclass(frozen=True)
class Calibration:
    """How good a classifier is on held-out examples."""

    examples: int
    accuracy: float
    majority: float
    """The accuracy of always saying the most frequent label."""
    precision: dict[str, float]
    recall: dict[str, float]
    expected_calibration_error: float
    """Mean distance of confidence and accuracy over ten bins of confidence (Guo et al. 2017)."""
    confidence: list[float]
    """Mean of each bin that has examples."""
    bin_accuracy: list[float]
    bin_examples: list[int]


def train_classifier(examples: Sequence[Example], path: Path, options: TrainingOptions) -> None:
    """Train on examples and publish the model at `path` in fastText's format.

    The same examples and options give the same file: training is single-threaded.
    """
    floret = package("floret", "floret")
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "examples.txt"
        with text.open("w", encoding="utf-8") as file:
            file.writelines(f"{LABEL}{label} {content}\n" for label, content in examples)
        try:
            model = floret.train_supervised(
                str(text),
                epoch=options.epochs,
                lr=options.lr,
                dim=options.dim,
                wordNgrams=options.word_ngrams,
                minCount=options.min_count,
                thread=1,
                verbose=0,
            )
        except (RuntimeError, ValueError) as error:
            raise UserError(f"training failed: {error}; try a smaller --lr") from None
        model.save_model(str(text))
        content = text.read_bytes()
    with atomic_write(path, "wb") as file:
        file.write(content[: _FLORET_FIELDS.start] + content[_FLORET_FIELDS.stop :])


def evaluate_classifier(path: Path, examples: Sequence[Example]) -> Calibration:
    """Return the accuracy and calibration of the model at `path` on held-out examples."""
    predict = load_classifier(path)
    guesses = [predict(text, 1)[0] for _, text in examples]
    truth = np.array([label for label, _ in examples])
    guessed = np.array([label for label, _ in guesses])
    right = guessed == truth
    confidence = np.array([score for _, score in guesses])
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    kept = [index for index in range(BINS) if (bins == index).any()]
    labels, counts = np.unique(truth, return_counts=True)
    return Calibration(
        examples=len(examples),
        accuracy=float(right.mean()),
        majority=float(counts.max() / len(examples)),
        precision={str(x): float(right[guessed == x].mean()) for x in labels if x in guessed},
        recall={str(x): float(right[truth == x].mean()) for x in labels},
        expected_calibration_error=_expected_error(confidence, right, bins),
        confidence=[float(confidence[bins == index].mean()) for index in kept],
        bin_accuracy=[float(right[bins == index].mean()) for index in kept],
        bin_examples=[int((bins == index).sum()) for index in kept],
    )


def _expected_error(
    confidence: Float[np.ndarray, " n"], right: Int[np.ndarray, " n"], bins: Int[np.ndarray, " n"]
) -> float:
    """Return the mean over examples of their bin's |confidence - accuracy|."""
    gaps = np.bincount(bins, confidence - right, minlength=BINS)
    return float(np.abs(gaps).sum() / len(confidence))


def write_calibration(calibration: Calibration, path: Path) -> None:
    """Write `<path>.json` and the calibration plot `<path>.png`."""
    with atomic_write(path.with_name(f"{path.name}.json")) as file:
        json.dump(asdict(calibration), file, indent=2)
        file.write("\n")
    error = calibration.expected_calibration_error
    title = f"Calibration: accuracy {calibration.accuracy:.1%}, expected error {error:.3f}"
    with picture(path.with_name(f"{path.name}.png"), title, size=(5.6, 5.2)) as [axes]:
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1)
        axes.plot(calibration.confidence, calibration.bin_accuracy, "o-", color=BLUE)
        for x, y, count in zip(
            calibration.confidence,
            calibration.bin_accuracy,
            calibration.bin_examples,
            strict=True,
        ):
            axes.annotate(f"{count:,}", (x, y), textcoords="offset points", xytext=(6, -12))
        axes.set(xlim=(0, 1.08), ylim=(0, 1.05), ylabel="accuracy")
        axes.set_xlabel(f"confidence, {calibration.examples:,} held-out texts")
