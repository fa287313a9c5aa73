"""Texts and special tokens that are likely to go wrong."""

from collections.abc import Sequence

from hypothesis import strategies as st

from lmlab.tokenizer import reference
from lmlab.tokenizer.bpe import Tokenizer

PIECES = [
    "'s", "'ll", "'LL", "'ſ", " the", "the ", "aaaa", "ab", "Ab", "AB", "ǅ", "ʰ", "א", "e\u0301",
    "é", "ß", "日本語", "한국어", "हिन्दी", "🙂", "👩‍👩‍👧", "1", "12345", "½", "Ⅷ", " ", "  ", "\n",
    "\t", "\u00a0", "\u2028", "\u3000", "\u0085", "\x1c", "\x00", "!", "...", " /", "//\n", "_",
    "<|a|>", "<|a|><|b|>", "<|", "|>", "\ufeff", "\U0010ffff", "\ue000", "-", "n't", "'", "''s",
    "\r\n",
]  # fmt: skip

unicode_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
texts = st.one_of(unicode_text, st.lists(st.sampled_from(PIECES), max_size=25).map("".join))
patterns = st.sampled_from(["gpt2", "cl100k", "o200k"])
special_tokens = st.lists(
    st.sampled_from(["<|a|>", "<|a|><|b|>", "<|", "a", " the", "日", "\n\n", "é", "<|a|>x"]),
    unique=True,
    max_size=4,
)


@st.composite
def cuts(draw: st.DrawFn, text: str) -> list[str]:
    """The text in pieces, some of which may be empty."""
    places = sorted(draw(st.lists(st.integers(0, len(text)), max_size=6)))
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]


def trained(
    text: str, vocab_size: int, special_tokens: Sequence[str] = (), pattern: str = "gpt2"
) -> Tokenizer:
    """A tokenizer trained by the reference."""
    vocab, merges = reference.train_bpe(text, vocab_size, special_tokens, pattern=pattern)
    return Tokenizer(vocab, merges, special_tokens, pattern)
