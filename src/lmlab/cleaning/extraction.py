"""HTML to text: the main content by our block classifier, resiliparse or trafilatura."""

from collections.abc import Callable, Sequence

from lmlab.cleaning.config import ExtractConfig
from lmlab.cleaning.document import Document, decide
from lmlab.cleaning.extras import package
from lmlab.cleaning.html import decode_html, main_content_extractor
from lmlab.cleaning.native import html_depth

Extractor = Callable[[str], str]


def _resiliparse(*, main_content: bool) -> Extractor:
    html2text = package("resiliparse.extract.html2text", "resiliparse")
    return lambda html: str(html2text.extract_plain_text(html, main_content=main_content))


def _trafilatura() -> Extractor:
    trafilatura = package("trafilatura", "trafilatura")
    return lambda html: str(trafilatura.extract(html) or "")


LIBRARIES: dict[str, Callable[[], Extractor]] = {
    "resiliparse": lambda: _resiliparse(main_content=False),
    "resiliparse_main": lambda: _resiliparse(main_content=True),
    "trafilatura": _trafilatura,
}
"""Name -> what imports the library."""


def extract_text(html_bytes: bytes) -> str:
    """Return all text of a page, decoded by `decode_html`, as resiliparse extracts it."""
    return _resiliparse(main_content=False)(decode_html(html_bytes))


def extract_main_content(html_bytes: bytes, max_depth: int = 512) -> str:
    """Return the main content of a page, one block a line; empty where elements nest deeper."""
    return main_content_extractor().extract(_utf8(decode_html(html_bytes)), max_depth)[1]


def _utf8(html: str) -> bytes:
    return html.encode("utf-8", "replace")


class Extract:
    """Turns `raw` into `text`; documents that have none are only measured.

    Scores: `bytes` of the HTML or text, `depth` of nested elements, `characters` of the text.
    """

    def __init__(self, config: ExtractConfig) -> None:
        self.name = config.step_name
        self.criteria = config.criteria()
        self._max_bytes = config.max_bytes
        self._max_depth = config.max_depth
        self._library: Extractor | None = None
        if config.extractor == "main":
            main_content_extractor()  # read once, before work is spread over processes
        else:
            self._library = LIBRARIES[config.extractor]()

    def __call__(self, documents: Sequence[Document]) -> list[Document]:
        """Extract each document's text; pages that are too large or too deep stay without."""
        for document in documents:
            raw = document.raw
            size = len(document.text.encode("utf-8", "replace")) if raw is None else len(raw)
            document.scores[f"{self.name}.bytes"] = float(size)
            if size <= self._max_bytes and raw is not None:
                depth, document.text = self._extract(decode_html(raw, document.charset))
                document.scores[f"{self.name}.depth"] = float(depth)
            document.raw = None
            document.scores[f"{self.name}.characters"] = float(len(document.text))
            decide(self.name, self.criteria, document)
        return list(documents)

    def _extract(self, html: str) -> tuple[int, str]:
        if self._library is None:
            return main_content_extractor().extract(_utf8(html), self._max_depth)
        depth = html_depth(_utf8(html), self._max_depth)
        return depth, self._library(html) if depth <= self._max_depth else ""
