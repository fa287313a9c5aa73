"""Configuration of the task: what a model is trained for."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from lmlab.alignment.config import ExamplesConfig, Normalization, PreferenceLossKind
from lmlab.schema import Config
from lmlab.task.rl_config import ExpertIterationConfig, GRPOConfig, PPOConfig


class SampleConfig(Config):
    """Text generated at evaluation points."""

    prompt: str | None
    """Text to continue; null: a new document."""
    tokens: Annotated[int, Field(ge=0)]
    """Tokens to generate; 0: no samples."""
    temperature: Annotated[float, Field(ge=0)]
    """Sampling temperature; 0: the likeliest token."""
    top_p: Annotated[float, Field(gt=0, le=1)]
    """Sample from the smallest set of tokens with this probability."""


class ObjectiveConfig(Config):
    """The training loss: cross-entropy, and terms added to it."""

    z_loss: Annotated[float, Field(ge=0)]
    """Weight of the mean squared logarithm of the softmax's normaliser (PaLM: 1e-4); 0: off."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    """Share of the target spread evenly over all tokens; logged losses are without it."""
    chunk_tokens: Literal["auto"] | Annotated[int, Field(ge=1)] | None
    """Tokens whose logits are in memory at a time; null: a whole micro-batch; auto: 1024 on the
    CPU, where that is also faster, else null."""


class PretrainConfig(Config):
    """Predict the next token of a corpus."""

    kind: Literal["pretrain"]
    objective: ObjectiveConfig
    sample: SampleConfig

    def fills_context(self) -> bool:
        """Return whether each row of a batch has as many tokens as the context."""
        return True


class _ExamplesTaskConfig(Config):
    examples: ExamplesConfig
    """Where the examples come from."""
    template: str | None
    """Chat template of conversations: chatml, plain, or the path of a Jinja template; it is kept
    with the tokenizer. null: the tokenizer's own, or else chatml."""

    def check(self, batch_size: int, context_length: int) -> None:
        """Return: any batch and context fit."""

    def fills_context(self) -> bool:
        """Return whether each row of a batch has as many tokens as the context."""
        return False


class SFTConfig(_ExamplesTaskConfig):
    """Supervised fine-tuning on demonstrations: the cross-entropy of the responses."""

    kind: Literal["sft"]
    packing: bool
    """Put several short examples into a row; attention stays within each. trainer.batch_size counts
    rows."""
    normalization: Normalization
    """token: all learnt tokens of a batch count alike; sequence: all examples; constant: the sum
    over an example's tokens is divided by `constant`."""
    constant: Annotated[float, Field(gt=0)] | None
    """Divides the sum over an example's tokens, with normalization=constant; else null."""
    sample: SampleConfig
    """Text generated at evaluation points; prompt=null: that of the first held-out example."""

    @model_validator(mode="after")
    def _constant_is_used(self) -> Self:
        if (self.normalization == "constant") != (self.constant is not None):
            raise ValueError(
                "constant goes with normalization=constant: give both, or constant=null"
            )
        return self

    def fills_context(self) -> bool:
        """Return whether each row of a batch has as many tokens as the context."""
        return self.packing


class DPOConfig(_ExamplesTaskConfig):
    """Direct preference optimization from pairs (Rafailov et al. 2023); starts from init_from=RUN,
    whose model is the reference."""

    kind: Literal["dpo"]
    loss: PreferenceLossKind
    """dpo: -log sigmoid of the difference of implicit rewards; ipo: its squared distance from
    1 / (2 beta) (Azar et al. 2023), of log-probabilities per token."""
    beta: Annotated[float, Field(gt=0)]
    """How strongly the policy is kept at the reference; larger: closer."""


TaskConfig = Annotated[
    PretrainConfig | SFTConfig | DPOConfig | GRPOConfig | ExpertIterationConfig | PPOConfig,
    Field(discriminator="kind"),
]
