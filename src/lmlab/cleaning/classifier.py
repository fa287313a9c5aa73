"""fastText classifiers of harm, quality and the like as a step."""

from collections.abc import Sequence

from lmlab.cleaning.config import ClassifierConfig
from lmlab.cleaning.document import Document, decide
from lmlab.cleaning.fasttext import load_classifier
from lmlab.errors import ConfigError


class Classifier:
    """Scores each document with the probability of one label."""

    def __init__(self, config: ClassifierConfig) -> None:
        self.name = config.step_name
        self.criteria = config.criteria()
        self._label = config.label
        self._predict = load_classifier(config.path)
        labels = self._predict.labels
        if config.label not in labels:
            raise ConfigError(
                f"cleaning.steps.{config.name}.label",
                f"{config.path} has no label {config.label!r}; it has {', '.join(sorted(labels))}",
            )

    def __call__(self, documents: Sequence[Document]) -> list[Document]:
        """Set the score `<name>.score`, and remove documents outside its range."""
        for document in documents:
            probabilities = dict(self._predict(document.text, -1))
            document.scores[f"{self.name}.score"] = probabilities.get(self._label, 0.0)
            decide(self.name, self.criteria, document)
        return list(documents)
