"""Bodies of requests: OpenAI's fields, and the sampling options that OpenAI does not have."""

import secrets
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails, from_json

from lmlab.generation.options import Options
from lmlab.serving.errors import ApiError

IGNORED = {
    "metadata", "prompt_cache_key", "safety_identifier", "service_tier", "store", "user",
}  # fmt: skip
"""Fields that do not change the text."""
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "presence_penalty": (0,),
    "response_format": ({"type": "text"},),
    "suffix": ("",),
    "tool_choice": ("none",),
    "tools": ([],),
}
"""OpenAI's fields that are not supported, with the values that change nothing."""
MOST_ALTERNATIVES = 20
RULES = {
    "prompt": "a string, a list of strings, a list of token ids, or a list of such lists",
    "stop": "a string that is not empty, or a list of at most 16 of them",
    "content": "a string, or a list of parts of type text",
}
"""Fields with several types: one rule instead of an error for each type."""
Text = Annotated[str, Field(min_length=1)]


class Body(BaseModel):
    """Part of a request: null means the default, an unknown field is an error."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _drop_null(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {key: value for key, value in data.items() if value is not None}


class StreamOptions(Body):
    """What a stream holds beside the text."""

    include_usage: bool = False
    include_obfuscation: bool = False
    """Accepted; there is nothing to hide."""


class Request(Body):
    """Fields of both kinds of requests."""

    model: str | None = None
    """Name of a served model; the first one by default."""
    n: int = Field(1, ge=1, le=128)
    temperature: float = Field(1.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int | None = Field(None, ge=1)
    min_p: float = Field(0.0, ge=0, le=1)
    repetition_penalty: float = Field(1.0, gt=0)
    seed: int | None = None
    """Sample i of a prompt uses seed + i; without one the seed is random."""
    stop: Text | Annotated[list[Text], Field(max_length=16)] = Field(default_factory=list)
    stream: bool = False
    stream_options: StreamOptions | None = None

    def options(self, max_new_tokens: int, logprobs: int | None, stop: tuple[str, ...]) -> Options:
        """Return the engine's options for the first sample."""
        own = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
        return Options(
            max_new_tokens=max_new_tokens,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
            seed=secrets.randbits(53) if self.seed is None else self.seed,
            stop=own + stop,
            logprobs=logprobs,
        )


class CompletionRequest(Request):
    """Body of `/v1/completions`."""

    prompt: str | list[str] | list[int] | list[list[int]] = ""
    max_tokens: int = Field(16, ge=0)
    """0 with `echo` scores the prompt."""
    logprobs: int | None = Field(None, ge=0, le=MOST_ALTERNATIVES)
    echo: bool = False

    @model_validator(mode="after")
    def _nothing_to_do(self) -> Self:
        if self.max_tokens == 0 and not self.echo:
            raise ValueError("max_tokens must be at least 1 without echo")
        return self


class TextPart(Body):
    """One part of a message."""

    type: Literal["text"]
    text: str


class Message(Body):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: str | None = None
    """For the template."""

    @property
    def text(self) -> str:
        """The content as one string."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


class ChatRequest(Request):
    """Body of `/v1/chat/completions`."""

    messages: list[Message] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=MOST_ALTERNATIVES)

    @model_validator(mode="after")
    def _alternatives_need_logprobs(self) -> Self:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        return self


R = TypeVar("R", bound=Request)


def parse(kind: type[R], body: bytes) -> R:
    """Return the request in a body; raises ApiError with the field and the rule."""
    try:
        data = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise ApiError(400, f"The body is not JSON: {error}", code="invalid_json") from None
    if not isinstance(data, dict):
        raise ApiError(400, "The body must be a JSON object.", code="invalid_json")
    kept = {key: value for key, value in data.items() if key not in IGNORED}
    for field, neutral in NEUTRAL.items():
        if field in kept and (value := kept.pop(field)) is not None and value not in neutral:
            message = f"'{field}' is not supported; leave it out."
            raise ApiError(400, message, param=field, code="unsupported_parameter")
    try:
        return kind.model_validate(kept)
    except ValidationError as error:
        raise _refusal(error.errors(include_url=False)[0], kept) from None


def _refusal(error: ErrorDetails, data: dict[str, Any]) -> ApiError:
    path = [part for part in error["loc"] if isinstance(part, int) or _is_field(part)]
    param = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path).lstrip(".") or None
    kind, message = error["type"], error["msg"]
    field = next((p for p in reversed(path) if isinstance(p, str)), "")
    if kind == "extra_forbidden":
        return ApiError(400, f"Unknown field: '{param}'.", param=param, code="unknown_parameter")
    if kind == "missing":
        return ApiError(
            400, f"'{param}' is missing.", param=param, code="missing_required_parameter"
        )
    if kind == "value_error":
        return ApiError(400, f"{error['ctx']['error']}.", param=param, code="invalid_value")
    rule = f"must be {RULES[field]}" if field in RULES else f"is not valid: {message.lower()}"
    if field in RULES:
        param = param and param[: param.rindex(field) + len(field)]
    return ApiError(400, f"'{param}' {rule}.", param=param, code="invalid_value")


def _is_field(part: str) -> bool:
    """Return whether a part of a path is a field, and not a member of a union."""
    return part.isidentifier() and part not in ("str", "int")
