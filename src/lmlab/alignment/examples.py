"""Examples in pieces that are given or learnt, from the columns of TRL, ShareGPT and Alpaca."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, TypeVar

from lmlab.alignment.rows import Row
from lmlab.alignment.templates import END, Message, Piece, Template, TemplateRefusal
from lmlab.errors import DataError

ROLES = {"human": "user", "gpt": "assistant", "bing": "assistant", "model": "assistant"}
"""ShareGPT's names of roles; others mean themselves."""
COLUMNS = "messages, conversations, prompt and completion, or instruction and output"
PAIRS = "prompt, chosen and rejected, or chosen and rejected with one beginning"


@dataclass(frozen=True)
class Example:
    """A text of which parts are learnt."""

    pieces: tuple[Piece, ...]
    place: str
    """Where it comes from, for messages."""

    @property
    def prompt(self) -> str:
        """What is given before the first piece that is learnt."""
        return "".join(piece.text for piece in takewhile(lambda p: not p.learned, self.pieces))


@dataclass(frozen=True)
class Pair:
    """Two responses to a prompt, of which one is better."""

    chosen: Example
    rejected: Example


Made = TypeVar("Made", Example, Pair)


class _Bad(ValueError):
    """What is wrong with a row."""


@dataclass(frozen=True)
class Converter:
    """Makes examples of rows.

    Conversations become text by `template`. A prompt that is text becomes `prompt_template` with
    `{prompt}` replaced, and its response is followed by the end of a document, as TRL does.
    """

    template: Template
    prompt_template: str = "{prompt}"
    ends: bool = True
    """Whether the tokenizer has `<|endoftext|>`."""

    def example(self, row: Row) -> Example:
        """Return a demonstration; raises DataError that names the row and what is wrong."""
        return _explained(self._example, row)

    def pair(self, row: Row) -> Pair:
        """Return a preference; raises DataError that names the row and what is wrong."""
        return _explained(self._pair, row)

    def _example(self, row: Row) -> Example:
        values = row.values
        if "messages" in values:
            return self._conversation(_messages(values["messages"], "messages"), row.place)
        if "conversations" in values:
            return self._conversation(
                _messages(values["conversations"], "conversations"), row.place
            )
        if "prompt" in values and "completion" in values:
            return self._answered(values["prompt"], values["completion"], "completion", row.place)
        if "instruction" in values and "output" in values:
            parts = [_text(values, "instruction"), _text({"input": "", **values}, "input")]
            asked = "\n\n".join(part for part in parts if part)
            reply = Message("assistant", _text(values, "output"))
            return self._conversation([Message("user", asked), reply], row.place)
        raise _Bad(f"has neither {COLUMNS} (there is {', '.join(values) or 'nothing'})")

    def _pair(self, row: Row) -> Pair:
        values = dict(row.values)
        if "chosen" not in values or "rejected" not in values:
            raise _Bad(f"needs {PAIRS} (there is {', '.join(values) or 'nothing'})")
        if "prompt" not in values:
            values |= _without_common_beginning(values["chosen"], values["rejected"])
        chosen, rejected = (
            self._answered(values["prompt"], values[name], name, row.place)
            for name in ("chosen", "rejected")
        )
        if chosen.pieces == rejected.pieces:
            raise _Bad("chosen and rejected are the same")
        return Pair(chosen, rejected)

    def _answered(self, prompt: Any, response: Any, name: str, place: str) -> Example:
        """Return a response to a prompt, both text or both messages."""
        if isinstance(prompt, list) and isinstance(response, list):
            given, replies = _messages(prompt, "prompt"), _messages(response, name)
            return self._conversation([*given, *replies], place, first=len(given))
        if not isinstance(prompt, str) or not isinstance(response, str):
            raise _Bad(f"prompt and {name} must both be text, or both lists of messages")
        if not response.strip():
            raise _Bad(f"{name} is empty")
        asked = self.prompt_template.replace("{prompt}", prompt)
        end = END if self.ends and not response.endswith(END) else ""
        return Example((Piece(asked, False), Piece(response + end, True)), place)

    def _conversation(self, messages: Sequence[Message], place: str, first: int = 0) -> Example:
        replies = [message for message in messages[first:] if message.role == "assistant"]
        if not replies:
            raise _Bad("has no message of the assistant to learn")
        if any(not reply.content.strip() for reply in replies):
            raise _Bad("a message of the assistant is empty")
        try:
            return Example(tuple(self.template.pieces(messages, first)), place)
        except TemplateRefusal as error:
            raise _Bad(f"the chat template refuses it: {error}") from None


def is_conversation(row: Row) -> bool:
    """Return whether a row becomes text by the chat template."""
    columns = {"messages", "conversations", "instruction"} & row.values.keys()
    return bool(columns) or isinstance(row.values.get("chosen", row.values.get("prompt")), list)


def _explained(convert: Callable[[Row], Made], row: Row) -> Made:
    try:
        return convert(row)
    except _Bad as error:
        raise DataError(f"{row.place}: {error}") from None


def _messages(value: Any, name: str) -> list[Message]:
    """Return messages of TRL (role, content) or of ShareGPT (from, value)."""
    if not isinstance(value, list) or not value:
        raise _Bad(f"{name} must be a list of messages")
    messages = []
    for turn in value:
        values = turn if isinstance(turn, Mapping) else {}
        keys = ("role", "content") if "role" in values else ("from", "value")
        role, content = (values.get(key) for key in keys)
        if not isinstance(role, str) or not isinstance(content, str):
            raise _Bad(f"each of {name} needs the texts role and content, or from and value")
        messages.append(Message(ROLES.get(role, role), content))
    return messages


def _text(values: Mapping[str, Any], name: str) -> str:
    value = values[name]
    if not isinstance(value, str):
        raise _Bad(f"{name} must be text")
    return value


def _without_common_beginning(chosen: Any, rejected: Any) -> dict[str, Any]:
    """Return prompt, chosen and rejected of two whole conversations; they differ at their end."""
    if not isinstance(chosen, list) or not isinstance(rejected, list):
        raise _Bad("without prompt, chosen and rejected must be lists of messages")
    same = 0
    while same < min(len(chosen), len(rejected)) and chosen[same] == rejected[same]:
        same += 1
    if same == 0:
        raise _Bad("chosen and rejected begin differently; give their prompt")
    return {"prompt": chosen[:same], "chosen": chosen[same:], "rejected": rejected[same:]}
