"""Text that the model writes while it is trained."""

import itertools

import torch

from lmlab.generation.sampling import generate
from lmlab.model import Transformer
from lmlab.runs.run import Run
from lmlab.task.config import SampleConfig
from lmlab.tokenizer import Tokenizer
from lmlab.training.runtime import Runtime


class SampleLogger:
    """Appends generated text to a run's samples.txt."""

    def __init__(
        self,
        settings: SampleConfig,
        model: Transformer,
        tokenizer: Tokenizer,
        run: Run,
        runtime: Runtime,
    ) -> None:
        self.settings, self.model, self.tokenizer = settings, model, tokenizer
        self.run, self.runtime = run, runtime

    def __call__(self, step: int) -> bool:
        """Write a sample; False, in all processes, when a signal came first."""
        if not self.settings.tokens:
            return True
        distributed = self.runtime.distributed
        text = self.write(step) if distributed.is_main_process else ""
        if distributed.maximum(text is None) or text is None:
            return False
        self.run.sample(step, text)
        return True

    def write(self, step: int) -> str | None:
        """Return text that depends on the weights, the seed and the step alone; None if stopped."""
        end = self.tokenizer.special_tokens["<|endoftext|>"]
        tokens = self.tokenizer.encode(self.settings.prompt or "")
        self.model.eval()
        new = generate(
            self.model,
            tokens or [end],
            self.settings.tokens,
            context_length=self.model.context_length,
            stop=end,
            temperature=self.settings.temperature,
            top_p=self.settings.top_p,
            vocab_size=self.tokenizer.vocab_size,
            generator=torch.Generator().manual_seed(self.runtime.seed * 1_000_003 + step),
            device=self.runtime.device,
            new_cache=self.model.new_cache,
        )
        tokens += itertools.takewhile(lambda _: not self._stops(), new)
        self.model.train()
        return None if self._stops() else self.tokenizer.decode(tokens)

    def _stops(self) -> bool:
        return self.run.stop_signal is not None
