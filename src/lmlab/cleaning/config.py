"""The configuration of the cleaning steps: one class for each kind; nothing heavy is imported."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from lmlab.cleaning.base_config import Count, Length, NGrams, Ratio
from lmlab.cleaning.base_config import StepBase as StepBase
from lmlab.cleaning.document import Criterion


class ExtractConfig(StepBase):
    """HTML to text; documents that are text already stay as they are, if they are not too large."""

    kind: Literal["extract"]
    extractor: Literal["main", "resiliparse", "resiliparse_main", "trafilatura"]
    """`main`: our block classifier; `resiliparse`: all text of the page; `resiliparse_main`:
    its rules for the main content; `trafilatura`: the slowest, of the highest quality."""
    max_bytes: Annotated[int, Field(ge=1)]
    """Larger pages, and larger texts, are removed unread."""
    max_depth: Annotated[int, Field(ge=16)]
    """Pages with deeper nested elements are removed."""

    def criteria(self) -> list[Criterion]:
        """Size and nesting of the page, then whether there is any text."""
        return [
            *self.criterion("bytes", high="max_bytes"),
            *self.criterion("depth", high="max_depth"),
            self.fixed("characters", low=1),
        ]


class RepairConfig(StepBase):
    """Unicode repair."""

    kind: Literal["repair"]
    ftfy: bool
    """Mend mojibake, HTML entities in text and control characters with ftfy."""
    nfc: bool
    """Normalise to NFC (Unicode Standard Annex 15)."""


class LanguageConfig(StepBase):
    """Identify the language; `metadata.language` holds its ISO 639 code."""

    kind: Literal["language"]
    identifier: Literal["fasttext", "langid"]
    """`fasttext`: lid.176.ftz (Joulin et al. 2016, arXiv:1612.03651); `langid`: py3langid."""
    languages: tuple[Annotated[str, Field(pattern="^[a-z]{2,3}$")], ...] | None
    """The languages to keep; null keeps all."""
    min_score: Ratio | None
    """The smallest probability of the language; null keeps all."""
    max_characters: Annotated[int, Field(ge=1)]
    """The identifier reads the beginning of a longer text."""

    def criteria(self) -> list[Criterion]:
        """Whether the language is one to keep, then its probability."""
        allowed = [] if self.languages is None else [self.fixed("allowed", low=1)]
        return [*allowed, *self.criterion("score", low="min_score")]


class PiiConfig(StepBase):
    """Mask personal information; removes no document."""

    kind: Literal["pii"]
    emails: bool
    """E-mail addresses become |||EMAIL_ADDRESS|||."""
    phone_numbers: bool
    """US phone numbers become |||PHONE_NUMBER|||."""
    ips: bool
    """IPv4 addresses become |||IP_ADDRESS|||."""


class GopherConfig(StepBase):
    """Quality rules of Gopher (Rae et al. 2021, arXiv:2112.11446, appendix A)."""

    kind: Literal["gopher"]
    min_words: Count | None
    """Words that are not punctuation alone."""
    max_words: Count | None
    """Words that are not punctuation alone."""
    min_mean_word_length: Length | None
    """Characters, over words that are not punctuation alone."""
    max_mean_word_length: Length | None
    """Characters, over words that are not punctuation alone."""
    max_hash_ratio: Ratio | None
    """Hash signs to words."""
    max_ellipsis_ratio: Ratio | None
    """Ellipses to words."""
    max_bullet_lines: Ratio | None
    """Share of lines that begin with a bullet or a hyphen."""
    max_ellipsis_lines: Ratio | None
    """Share of lines that end in an ellipsis."""
    min_alphabetic_words: Ratio | None
    """Share of words with a letter."""
    min_stop_words: Count | None
    """How many different stop words occur."""
    stop_words: tuple[str, ...]
    """Compared exactly, in lower case."""

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        self.ordered("min_words", "max_words")
        self.ordered("min_mean_word_length", "max_mean_word_length")
        if self.min_stop_words is not None and self.min_stop_words > len(set(self.stop_words)):
            raise ValueError(
                f"min_stop_words={self.min_stop_words} is above the {len(set(self.stop_words))} "
                "different stop_words: nothing passes"
            )
        return self

    def criteria(self) -> list[Criterion]:
        """The rules in datatrove's order."""
        return [
            *self.criterion("words", "min_words", "max_words"),
            *self.criterion("mean_word_length", "min_mean_word_length", "max_mean_word_length"),
            *self.criterion("hash_ratio", high="max_hash_ratio"),
            *self.criterion("ellipsis_ratio", high="max_ellipsis_ratio"),
            *self.criterion("bullet_lines", high="max_bullet_lines"),
            *self.criterion("ellipsis_lines", high="max_ellipsis_lines"),
            *self.criterion("alphabetic_words", low="min_alphabetic_words"),
            *self.criterion("stop_words", low="min_stop_words"),
        ]


class RepetitionConfig(StepBase):
    """Repetition rules of Gopher (Rae et al. 2021, arXiv:2112.11446, table A1)."""

    kind: Literal["repetition"]
    max_duplicate_paragraphs: Ratio | None
    """Share of paragraphs that occurred before."""
    max_duplicate_paragraph_characters: Ratio | None
    """Their share of the characters."""
    max_duplicate_lines: Ratio | None
    """Share of lines that occurred before."""
    max_duplicate_line_characters: Ratio | None
    """Their share of the characters."""
    top_ngrams: NGrams
    """n -> share of the characters that the most frequent n-gram may fill; `top_ngrams.2=0.1`
    changes one, `~...top_ngrams.2` removes it."""
    duplicate_ngrams: NGrams
    """n -> share of the characters that n-grams that occurred before may fill."""

    def criteria(self) -> list[Criterion]:
        """The rules in datatrove's order."""

        def ngrams(key: str) -> list[Criterion]:
            return [
                Criterion(
                    f"repetition.{key.removesuffix('s')}_{n}",
                    f"{key.removesuffix('s')}_{n}",
                    high=share,
                    high_key=f"{key}.{n}",
                )
                for n, share in getattr(self, key).items()
            ]

        return [
            self.fixed("characters", low=1),
            *self.criterion("duplicate_paragraphs", high="max_duplicate_paragraphs"),
            *self.criterion(
                "duplicate_paragraph_characters", high="max_duplicate_paragraph_characters"
            ),
            *self.criterion("duplicate_lines", high="max_duplicate_lines"),
            *self.criterion("duplicate_line_characters", high="max_duplicate_line_characters"),
            *ngrams("top_ngrams"),
            *ngrams("duplicate_ngrams"),
        ]


class C4Config(StepBase):
    """Line and page rules of C4 (Raffel et al. 2020, arXiv:1910.10683, section 2.2)."""

    kind: Literal["c4"]
    remove_citations: bool
    """Cut Wikipedia's citation marks ([1], [edit], [citation needed]) out of lines."""
    terminal_punctuation: bool
    """Drop lines that do not end in . ? ! or a quotation mark, or that end in an ellipsis."""
    min_words_per_line: Count
    """Drop lines with fewer words."""
    max_word_length: Annotated[int, Field(ge=1)] | None
    """Drop lines with a longer word, in characters."""
    drop_javascript_lines: bool
    """Drop lines with the word JavaScript."""
    drop_policy_lines: bool
    """Drop lines about cookies, terms of use and privacy policies."""
    refuse_lorem_ipsum: bool
    """Remove pages with placeholder text."""
    refuse_curly_brackets: bool
    """Remove pages with a curly bracket."""
    min_sentences: Count | None
    """In the lines that are left."""

    def criteria(self) -> list[Criterion]:
        """Placeholder text, curly brackets, then sentences."""
        return [
            *([self.fixed("lorem_ipsum", high=0)] if self.refuse_lorem_ipsum else []),
            *([self.fixed("curly_brackets", high=0)] if self.refuse_curly_brackets else []),
            *self.criterion("sentences", low="min_sentences"),
        ]


class FineWebConfig(StepBase):
    """Quality rules of FineWeb (Penedo et al. 2024, arXiv:2406.17557, section 3.6)."""

    kind: Literal["fineweb"]
    min_punctuated_lines: Ratio | None
    """Share of lines that end in terminal punctuation."""
    max_short_lines: Ratio | None
    """Share of lines of at most short_line_length characters."""
    short_line_length: Count
    """Characters."""
    max_duplicate_line_characters: Ratio | None
    """Share of characters in lines that occurred before."""
    max_newline_ratio: Annotated[float, Field(ge=0)] | None
    """Line breaks to words."""

    def criteria(self) -> list[Criterion]:
        """The rules in datatrove's order."""
        return [
            self.fixed("lines", low=1),
            *self.criterion("punctuated_lines", low="min_punctuated_lines"),
            *self.criterion("short_lines", high="max_short_lines"),
            *self.criterion("duplicate_line_characters", high="max_duplicate_line_characters"),
            *self.criterion("newline_ratio", high="max_newline_ratio"),
        ]


class ClassifierConfig(StepBase):
    """A fastText classifier, from `lmlab cleaning train-classifier` or elsewhere."""

    kind: Literal["classifier"]
    name: Annotated[str, Field(pattern="^[a-z][a-z0-9_]*$")]
    """The step's name: quality, toxic, ..."""
    path: Path
    """The model's file."""
    label: Annotated[str, Field(min_length=1)]
    """The label whose probability is the score."""
    min_score: Ratio | None
    """Smaller probabilities are removed."""
    max_score: Ratio | None
    """Larger probabilities are removed."""

    @property
    def step_name(self) -> str:
        """The configured name: there may be several classifiers."""
        return self.name

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        self.ordered("min_score", "max_score")
        return self

    def files(self) -> list[str]:
        """The model."""
        return [str(self.path)]

    def criteria(self) -> list[Criterion]:
        """The probability of the label."""
        return self.criterion("score", "min_score", "max_score")


StepConfig = Annotated[
    ExtractConfig
    | RepairConfig
    | LanguageConfig
    | PiiConfig
    | GopherConfig
    | RepetitionConfig
    | C4Config
    | FineWebConfig
    | ClassifierConfig,
    Field(discriminator="kind"),
]
