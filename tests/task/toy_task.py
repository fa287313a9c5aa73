"""A second task, as short as one can be: whether a string of bytes has more a's than b's."""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lmlab.model import Transformer
from lmlab.runs.run import Run
from lmlab.task.base import Task
from lmlab.tokenizer import Tokenizer
from lmlab.tokenizer.bpe import byte_tokenizer
from lmlab.training.objective import Losses, Objective
from lmlab.training.state import Criterion, Metrics


class Classify(Objective):
    """Cross-entropy of the class, the token after the last one, over the rows that count."""

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor, classes: Tensor, mask: Tensor) -> Losses:
        logits = self.model(inputs)[:, -1, :2]
        losses = nn.functional.cross_entropy(logits, classes, reduction="none")
        total = (losses * mask).sum()
        right = ((logits.argmax(-1) == classes) * mask).sum()
        return total, {"loss": total.detach(), "accuracy": right.float()}

    def weight(self, inputs: Tensor, classes: Tensor, mask: Tensor) -> float:
        return mask.sum().item()


class Strings:
    """Random strings; its generator is a state that checkpoints must keep."""

    def __init__(self, rows: int, length: int, seed: int) -> None:
        self.rows, self.length = rows, length
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        inputs = torch.randint(97, 99, (self.rows, self.length), generator=self.generator)
        mask = torch.rand(self.rows, generator=self.generator) < 0.8
        return inputs, (inputs == 97).sum(-1).mul(2).gt(self.length).long(), mask.float()

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["generator"])


class ToyTask(Task):
    criterion: ClassVar[Criterion] = Criterion("val/accuracy", maximize=True)
    tokenizer: Tokenizer = byte_tokenizer(["<|endoftext|>"])

    def prepare(self, say: Callable[[str], None]) -> None:
        say("nothing to prepare")

    def build_objective(self, model: Transformer) -> Classify:
        return Classify(model)

    def build_source(self) -> Strings:
        return Strings(self.config.trainer.batch_size, 9, self.runtime.seed)

    def build_evaluation(
        self, model: Transformer, objective: nn.Module, run: Run
    ) -> Callable[[int], Metrics | None]:
        def evaluate(step: int) -> Metrics | None:
            batch = Strings(256, 9, seed=12345)(0)
            _, sums = objective(*batch)
            accuracy = sums["accuracy"].item() / batch[2].sum().item()
            return None if run.stop_signal is not None else {"val/accuracy": accuracy}

        return evaluate
