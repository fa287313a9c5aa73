"""The tokenizer: text to ids and back, over the native encoder."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from lmlab.errors import DataError
from lmlab.files import atomic_write
from lmlab.tokenizer import formats, interchange
from lmlab.tokenizer.inputs import Errors, decode_chunks, read_chunks
from lmlab.tokenizer.pretokenize import to_utf8
from lmlab.tokenizer.vocabulary import Pair, Vocabulary

Ids = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]
SpecialTokens = Sequence[str] | Mapping[str, int] | None
PathLike = str | Path

_PIECE = 1 << 15  # characters that `encode_iterable` gathers before it encodes
