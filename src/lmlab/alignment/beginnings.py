"""Rows with equal beginnings, such as the responses to a prompt: these are computed once."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from lmlab.alignment.masks import until_last
from lmlab.kernels.onednn import ROW_MULTIPLE
from lmlab.model import Transformer
from lmlab.model.context import Rows

PADDING = -1


def beginnings(
    ids: Int[Tensor, "batch time"], mask: Bool[Tensor, "batch time"]
) -> Int[Tensor, "batch time"]:
    """Return a number for each token, the same where rows are equal up to and with it.

    `mask` is where labels are learnt; what comes after the last of them has the number -1.
    """
    tokens: Any = ids.numpy()
    numbers = np.empty(tokens.shape, np.int64)
    before = np.zeros(len(tokens), np.int64)
    count = 0
    for column in range(tokens.shape[1]):
        pairs = before * (tokens.max() + 1) + tokens[:, column]
        found, before = np.unique(pairs, return_inverse=True)
        before = before + count
        numbers[:, column] = before
        count += len(found)
    return torch.where(until_last(mask), torch.from_numpy(numbers), PADDING)


def hidden_states(
    model: Transformer, ids: Int[Tensor, "batch time"], numbers: Int[Tensor, "batch time"]
) -> Float[Tensor, "batch time d_model"]:
    """Return `model.hidden(ids)`, computed once for tokens with one number of `beginnings`.

    Where the number is -1 the result has no meaning.
    """
    if not model.takes_rows:
        return model.hidden(ids, counted=numbers != PADDING)
    rows = _rows(numbers)
    first = ids.flatten()[rows.first]
    hidden = model.hidden(first, rows.first % ids.shape[1], rows=rows)
    return F.embedding(rows.token, hidden)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _rows(numbers: Int[Tensor, "batch time"]) -> Rows:
    flat = numbers.flatten()
    places = (flat != PADDING).nonzero()[:, 0]
    distinct, token_of = flat[places].unique(return_inverse=True)
    token = torch.zeros_like(flat).index_copy_(0, places, token_of)
    first = torch.full_like(distinct, len(flat)).scatter_reduce_(0, token_of, places, "amin")
    # In the order of the rows, whose tokens then lie together in memory.
    first, order = first.sort()
    token = torch.empty_like(order).index_copy_(0, order, torch.arange(len(order)).to(order))[token]
    token = token.view(numbers.shape)
    # A row's tokens that no earlier row has are its last ones.
    own = torch.zeros_like(flat).index_fill_(0, first, 1).view_as(token).sum(dim=1)
    length = (numbers != PADDING).sum(dim=1)
    sharing = torch.cat((torch.stack((length - own, length), dim=1), token), dim=1)
    padded = torch.cat([first, first[: -len(first) % ROW_MULTIPLE]])
    return Rows(token, padded, sharing)
