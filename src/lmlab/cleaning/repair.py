"""Unicode repair: mojibake with ftfy, and the normal form NFC."""

import unicodedata
from collections.abc import Callable, Sequence

from lmlab.cleaning.config import RepairConfig
from lmlab.cleaning.document import Document
from lmlab.cleaning.extras import package


class Repair:
    """Repairs the text; the score is 1 where it changed."""

    def __init__(self, config: RepairConfig) -> None:
        self.name = config.step_name
        self._repairs: list[Callable[[str], str]] = []
        if config.ftfy:
            ftfy = package("ftfy", "ftfy")
            # NFC is a switch of its own; HTML is already decoded
            plain = ftfy.TextFixerConfig(normalization=None, explain=False)
            self._repairs.append(lambda text: str(ftfy.fix_text(text, plain)))
        if config.nfc:
            self._repairs.append(lambda text: unicodedata.normalize("NFC", text))

    def __call__(self, documents: Sequence[Document]) -> list[Document]:
        """Repair each document's text."""
        for document in documents:
            text = document.text
            for repair in self._repairs:
                text = repair(text)
            document.scores[f"{self.name}.changed"] = float(text != document.text)
            document.text = text
        return list(documents)
