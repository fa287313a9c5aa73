"""FLOPs of rows of any length, part of whose tokens go through the output head."""

from lmlab.accounting.count import flops_by_part
from lmlab.model import build
from lmlab.model.config import ModelConfig


class RowFlops:
    """Counts the matrix products of a model's forward pass, as `flops_by_part` does.

    Padding counts like any token, as the device computes it. Each length is counted once.
    """

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        self.model = build(config, vocab_size, device="meta")
        self._parts: dict[int, dict[str, int]] = {}

    def __call__(self, rows: int, length: int, labels: int | None = None) -> float:
        """Return the FLOPs of `rows` rows of `length` tokens, padding among them.

        `labels` is how many tokens of all rows go through the head; None: all.
        """
        if length not in self._parts:
            self._parts[length] = flops_by_part(self.model, length)
        parts = self._parts[length]
        headed = rows * length if labels is None else labels
        return rows * (sum(parts.values()) - parts["head"]) + headed * parts["head"] / length
