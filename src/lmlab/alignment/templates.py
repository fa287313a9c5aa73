"""Chat templates in Jinja: text from conversations, and the part of it that is learnt."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from jinja2 import TemplateError
from jinja2.ext import Extension
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from lmlab.errors import UserError

END = "<|endoftext|>"
CHATML = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% endif -%}
"""
"""The format of OpenAI, also of Qwen."""
PLAIN = """\
{%- for message in messages -%}
{{ message.role | capitalize }}: {{ message.content }}

{% endfor -%}
{%- if add_generation_prompt -%}Assistant:{%- endif -%}
"""
"""For models that were not trained on conversations."""
TEMPLATES = {"chatml": CHATML, "plain": PLAIN}
_MARK = "\N{OBJECT REPLACEMENT CHARACTER}"
_SPECIAL = re.compile(r"<\|[^|<>\s]+\|>")


class Message(NamedTuple):
    """A turn of a conversation."""

    role: str
    """system, user or assistant."""
    content: str


class Piece(NamedTuple):
    """A part of an example."""

    text: str
    learned: bool
    """The model learns to write it; False: it is given."""


class _Generation(Extension):
    """The block that marks what is learnt in templates of transformers; here it is its content."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[Node]:
        """Return the content of a block."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class TemplateRefusal(ValueError):
    """A template cannot make text of a conversation; the message says why."""


class Template:
    """A chat template, run in Jinja's sandbox.

    It has `messages`, `add_generation_prompt`, `bos_token` and `eos_token` (both `<|endoftext|>`),
    and `raise_exception(text)`. Raises jinja2's TemplateError when `source` is no template.
    """

    def __init__(self, source: str) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols", _Generation],
        )
        environment.globals["raise_exception"] = _refuse
        self._template = environment.from_string(source)
        self.source = source

    @property
    def special_tokens(self) -> list[str]:
        """The special tokens that the template writes, `<|im_start|>` for instance."""
        return list(dict.fromkeys(_SPECIAL.findall(self.source)))

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool) -> str:
        """Return the text of a conversation; raises TemplateRefusal."""
        values = [{"role": message.role, "content": message.content} for message in messages]
        try:
            return self._template.render(
                messages=values,
                add_generation_prompt=add_generation_prompt,
                bos_token=END,
                eos_token=END,
            )
        except Exception as error:  # whatever a template of the user's does
            raise TemplateRefusal(str(error)) from None

    def stop(self, special_tokens: Sequence[str]) -> str | None:
        """Return what ends a reply: its first special token, or else the user's next beginning.

        None for a template that refuses an ordinary conversation, or puts nothing there.
        """
        turns = [Message(role, _MARK) for role in ("user", "assistant", "user")]
        try:
            text = self.render(turns, add_generation_prompt=False)
        except TemplateRefusal:  # a template with rules of its own about conversations
            return None
        parts = text.split(_MARK)
        if len(parts) != len(turns) + 1:
            return None
        after = parts[2]
        found = [(after.find(s), s) for s in special_tokens if s in after]
        return (min(found)[1] if found else after.rstrip()) or None

    def pieces(self, messages: Sequence[Message], first: int = 0) -> list[Piece]:
        """Return a conversation in pieces; replies of the assistant from `first` on are learnt.

        A reply begins where the generation prompt ends. What follows the last reply is left out.
        Raises TemplateRefusal, also when the text before a reply depends on what comes later.
        """
        pieces: list[Piece] = []
        text = ""
        for number, message in enumerate(messages):
            if message.role != "assistant" or number < first:
                continue
            before = self.render(messages[:number], add_generation_prompt=True)
            after = self.render(messages[: number + 1], add_generation_prompt=False)
            if not before.startswith(text) or not after.startswith(before):
                raise TemplateRefusal(
                    "the text up to a reply changes when the reply is there, so that the reply "
                    "cannot be told from its prompt"
                )
            pieces.append(Piece(before[len(text) :], False))
            pieces.append(Piece(after[len(before) :], True))
            text = after
        return pieces


def find_template(name: str | None, own: str | None) -> Template:
    """Return the template `chatml` or `plain`, or that of a file; None: `own`, or else `chatml`.

    Raises UserError when there is no such file, or it is no template.
    """
    if name is None:
        return Template(own or CHATML)
    if name in TEMPLATES:
        return Template(TEMPLATES[name])
    path = Path(name).expanduser()
    try:
        return Template(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8; give a Jinja template") from None
    except OSError as error:
        raise UserError(
            f"task.template={name} is none of {', '.join(TEMPLATES)}, and no file "
            f"({error.strerror})"
        ) from None
    except TemplateError as error:
        raise UserError(f"{path} is not a Jinja template: {error}") from None


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)
