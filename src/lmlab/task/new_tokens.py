"""Special tokens that a run adds to the vocabulary of the run it starts from."""

from torch import Tensor, nn

from lmlab.errors import UserError
from lmlab.tokenizer import Tokenizer
from lmlab.training.checkpoint import is_sharded

ROWS = ("token_embedding.weight", "lm_head.weight")
"""Parameters with a row for each token."""


def require_extension(theirs: Tokenizer, own: Tokenizer, given: str) -> None:
    """Raise UserError unless a tokenizer has all tokens of another one, under the same ids."""
    same = theirs.merges == own.merges and theirs.pattern == own.pattern
    tokens = theirs.vocab.items() <= own.vocab.items()
    special = theirs.special_tokens.items() <= own.special_tokens.items()
    added = len(own.vocab) - len(theirs.vocab)
    only_special = added <= len(own.special_tokens) - len(theirs.special_tokens)
    if not (same and tokens and special and only_special):
        raise UserError(
            f"{given} was trained with another tokenizer ({theirs.vocab_size:,} tokens, here "
            f"{own.vocab_size:,}), so its embeddings mean other tokens; leave out tokenizer="
        )


def with_new_rows(
    weights: dict[str, Tensor], model: nn.Module, known: int, given: str
) -> dict[str, Tensor]:
    """Return weights with rows for tokens beyond the `known` ones: the mean of the known rows.

    A new token is then about as likely as the others (Hewitt 2021). Raises UserError for a sharded
    checkpoint, of which no process has the whole rows.
    """
    grown = dict(weights)
    for name in ROWS:
        old, rows = weights[name], model.state_dict()[name].shape[0]
        if is_sharded({name: old}):
            raise UserError(
                f"{given} is sharded, and the chat template adds special tokens to its embedding; "
                "start from one file: lmlab checkpoint convert RUN --to plain"
            )
        new = old.new_empty(rows, old.shape[1])
        new[:known] = old[:known]
        new[known:] = old[:known].mean(dim=0)
        grown[name] = new
    if weights[ROWS[0]] is weights[ROWS[1]]:
        grown[ROWS[1]] = grown[ROWS[0]]
    return grown
