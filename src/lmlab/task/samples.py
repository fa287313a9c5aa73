"""Text that the model writes while it is trained."""

from lmlab.generation.generate import generate
from lmlab.generation.options import Options
from lmlab.model import Transformer, build
from lmlab.parallel.strategy import Strategy
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
        distributed, strategy = self.runtime.distributed, self.runtime.strategy
        model = whole_model(self.model, strategy) if strategy.sharded else self.model
        text = self.write(model, step) if distributed.is_main_process else ""
        if distributed.maximum(text is None) or text is None:
            return False
        self.run.sample(step, text)
        return True

    def write(self, model: Transformer, step: int) -> str | None:
        """Return text that depends on the weights, the seed and the step alone; None if stopped."""
        prompt = self.settings.prompt or ""
        options = Options(
            max_new_tokens=self.settings.tokens,
            temperature=self.settings.temperature,
            top_p=self.settings.top_p,
            seed=self.runtime.seed * 1_000_003 + step,
        )
        (sample,) = generate(
            model, self.tokenizer, [prompt], options, should_stop=self._stop_requested
        )
        return None if self._stop_requested() else prompt + sample.text

    def _stop_requested(self) -> bool:
        return self.run.stop_signal is not None


def whole_model(model: Transformer, strategy: Strategy) -> Transformer:
    """Return a copy of a sharded model with its whole weights; on ranks other than 0 without.

    All processes must call it.
    """
    weights, device = strategy.full_weights(model), next(model.parameters()).device
    copy = build(model.config, model.vocab_size, device="meta")
    if weights:
        copy.to_empty(device=device)
        copy.position.reset_parameters()  # tables, which are not among the weights
        copy.load_state_dict(weights)
    return copy
