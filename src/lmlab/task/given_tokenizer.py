"""The tokenizer of tasks that have no corpus to train one on."""

from lmlab.errors import ConfigError
from lmlab.tokenizer import Tokenizer, build
from lmlab.tokenizer.config import TokenizerConfig


def given_tokenizer(config: TokenizerConfig) -> Tokenizer:
    """Return the configured tokenizer; raises ConfigError for one that would be trained."""
    if config.kind == "bpe":
        raise ConfigError(
            "tokenizer",
            "a BPE vocabulary is trained on a corpus, which this task has not; start from a "
            "run with init_from=RUN, or take tokenizer=byte",
        )
    return build(config, list)
