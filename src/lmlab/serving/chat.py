"""Prompts from conversations, by a Jinja template as Hugging Face's tokenizers have."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from lmlab.errors import UserError
from lmlab.serving.errors import ApiError
from lmlab.serving.protocol import Message

PLAIN = """\
{%- for message in messages -%}
{{ message.role | capitalize }}: {{ message.content }}

{% endfor -%}
{%- if add_generation_prompt -%}Assistant:{%- endif -%}
"""
"""For models that were not trained on conversations."""
MARK = "\N{OBJECT REPLACEMENT CHARACTER}"


class ChatTemplate:
    """Turns messages into a prompt.

    The template runs in Jinja's sandbox, with `messages`, `add_generation_prompt`, `bos_token` and
    `eos_token` (both `<|endoftext|>`), and `raise_exception(text)`. `stop` is what the template
    puts after a reply: a special token, or the beginning of the user's next message.
    """

    def __init__(self, source: str = PLAIN, special_tokens: Sequence[str] = ()) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.globals["raise_exception"] = _refuse
        self._template = environment.from_string(source)
        self.stop = self._stop(special_tokens)

    @classmethod
    def read(cls, path: Path, special_tokens: Sequence[str] = ()) -> "ChatTemplate":
        """Return the template in a file; raises UserError when it is not one."""
        try:
            return cls(path.read_text(encoding="utf-8"), special_tokens)
        except UnicodeDecodeError:
            raise UserError(f"{path} is not UTF-8; give a Jinja template") from None
        except TemplateError as error:
            raise UserError(f"{path} is not a Jinja template: {error}") from None

    def prompt(self, messages: Sequence[Message]) -> str:
        """Return the text that the model continues; raises ApiError when the template refuses."""
        try:
            return self._render([{"role": m.role, "content": m.text} for m in messages], True)
        except Exception as error:  # whatever a template of the user's does
            raise ApiError(
                400, f"The chat template refuses the messages: {error}", param="messages"
            ) from None

    def _render(self, messages: list[dict[str, str]], add_generation_prompt: bool) -> str:
        end = "<|endoftext|>"
        values: dict[str, Any] = {"bos_token": end, "eos_token": end}
        return self._template.render(
            messages=messages, add_generation_prompt=add_generation_prompt, **values
        )

    def _stop(self, special_tokens: Sequence[str]) -> tuple[str, ...]:
        roles = ("user", "assistant", "user")
        try:
            text = self._render([{"role": role, "content": MARK} for role in roles], False)
        except Exception:  # a template with rules of its own about conversations
            return ()
        parts = text.split(MARK)
        if len(parts) != len(roles) + 1:
            return ()
        after = parts[2]
        found = [(after.find(s), s) for s in special_tokens if s in after]
        stop = min(found)[1] if found else after.rstrip()
        return (stop,) if stop.strip() else ()


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)
