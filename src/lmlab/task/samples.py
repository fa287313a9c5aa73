"""Text that the model writes while it is trained."""

from lmlab.generation.generate import generate
from lmlab.generation.options import Options
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
        prompt = self.settings.prompt or ""
        options = Options(
            max_new_tokens=self.settings.tokens,
            temperature=self.settings.temperature,
            top_p=self.settings.top_p,
            seed=self.runtime.seed * 1_000_003 + step,
        )
        (sample,) = generate(
            self.model, self.tokenizer, [prompt], options, should_stop=self._stop_requested
        )
        return None if self._stop_requested() else prompt + sample.text

    def _stop_requested(self) -> bool:
        return self.run.stop_signal is not None
