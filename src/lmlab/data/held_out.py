"""The held-out tokens of a trained run, when its prepared data are still there."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from lmlab.data.config import DataConfig
from lmlab.data.corpus import cache_root


def held_out_tokens(config: DataConfig, record: Path) -> np.memmap[Any, Any] | None:
    """Return the held-out token ids that a run's data.json describes; None when they are gone.

    They are looked for under `data.cache_dir`. Nothing is prepared or written.
    """
    try:
        meta = json.loads(record.read_bytes())
        directory = cache_root(config) / f"{meta['corpus']}-{meta['fingerprint']}"
        tokens = np.memmap(directory / "val.bin", np.dtype(meta["dtype"]), mode="r")
        return tokens if len(tokens) == meta["val_tokens"] else None
    except (OSError, KeyError, TypeError, ValueError):
        return None
