import gettext
import inspect

import pytest
from hypothesis import settings
from tokenizer_strategies import PIECES, trained

from lmlab.tokenizer.bpe import Tokenizer

settings.register_profile("lmlab", deadline=None)
settings.load_profile("lmlab")


@pytest.fixture(scope="session")
def corpus() -> str:
    """Some thousand words of code and English with a little of everything else in between."""
    return inspect.getsource(gettext)[:20_000] + " ".join(PIECES * 20)


@pytest.fixture(scope="session")
def small(corpus: str) -> Tokenizer:
    """500 tokens, GPT-2's pattern, one special token."""
    return trained(corpus, 500, ["<|endoftext|>"])
