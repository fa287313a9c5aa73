"""The interactive mode: you write, the model continues, the text grows."""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace

from lmlab.errors import UserError
from lmlab.generation import settings
from lmlab.generation.engine import Engine, Generation
from lmlab.generation.history import line_editing
from lmlab.generation.interrupts import deferred_interrupt
from lmlab.generation.options import Options
from lmlab.generation.output import visible, write
from lmlab.generation.prompts import require_text

HELP = """\
Text that you enter is appended to the text so far, as it is, and the model continues it.
A line that ends in \\ goes on in the next line. A text that begins with / is entered as //.
  /continue, or an empty line    continue the text so far
  /retry                         replace the last continuation by another one
  /reset                         begin a new text
  /set                           show the settings
  /set KEY VALUE                 change one, such as /set temperature 0.7; none: the default
  /KEY VALUE                     the same, such as /seed 3
  /quit, or Ctrl-D               leave
Ctrl-C stops a continuation. Every continuation adds 1 to the seed.
"""
_BOLD, _DIM, _PLAIN = "\033[1m", "\033[2m", "\033[0m"


class Session:
    """A text that the user and the model write together."""

    def __init__(
        self, engine: Engine, options: Options, read: Callable[[str], str] = input
    ) -> None:
        self.engine = engine
        self.options = options
        self.text: list[int] = []
        """Tokens of the text so far."""
        self._read = read
        self._before: list[int] | None = None
        self._cropping_said = False

    def run(self, banner: str) -> None:
        """Read and continue until the end of the input."""
        _say(f"{banner}\nWrite the beginning of a text. /help lists the commands, Ctrl-D leaves.")
        with line_editing():
            while True:
                try:
                    entered = self._enter()
                    if entered.strip() in ("/quit", "/exit"):
                        return
                    self._obey(entered)
                except UserError as error:
                    _say(str(error))
                except KeyboardInterrupt:
                    _say("\n(Ctrl-D leaves)")
                except EOFError:
                    print()
                    return

    def _enter(self) -> str:
        """Return what the user enters; lines that end in a backslash go on."""
        lines = [self._read(f"{len(self.text):,} tokens> " if self.text else "> ")]
        while lines[-1].endswith("\\"):
            lines[-1] = lines[-1][:-1]
            lines.append(self._read("... "))
        return "\n".join(lines)

    def _obey(self, entered: str) -> None:
        if not entered.startswith("/") or entered.startswith("//"):
            self._append(entered.removeprefix("/") if entered.startswith("//") else entered)
            return
        command, _, rest = entered[1:].strip().partition(" ")
        if command == "help":
            _say(HELP.rstrip())
        elif command == "continue":
            self._continue()
        elif command == "retry":
            self._retry()
        elif command == "reset":
            self.text, self._before = [], None
        elif command == "set" and not rest:
            _say("\n".join(f"{k} = {getattr(self.options, k)!r}" for k in settings.SETTINGS))
        elif command == "set":
            self._set(*rest.strip().partition(" ")[::2])
        elif command.replace("-", "_") in settings.SETTINGS:
            self._set(command, rest)
        else:
            raise UserError(
                f"unknown command /{command}; /help lists them, // begins a text with a slash"
            )

    def _set(self, name: str, value: str) -> None:
        if not value:
            raise UserError(f"/set {name} needs a value, such as /set temperature 0.7")
        self.options = settings.with_setting(self.options, name, value)

    def _append(self, text: str) -> None:
        if text:
            require_text(text, "the text")
            self.text = self.text + self.engine.tokenizer.encode(text)
            _style(visible(text), _BOLD, end="")
        self._continue()

    def _retry(self) -> None:
        if self._before is None:
            raise UserError("there is no continuation to replace; enter a text first")
        self.text = self._before
        self._continue()

    def _continue(self) -> None:
        self._before = self.text
        generation = self.engine.submit(self.text, self.options)
        began, last = time.perf_counter(), ""
        try:
            with deferred_interrupt() as interrupt:
                for piece in self.engine.run():
                    write(piece.text)
                    last = piece.text or last
                    if interrupt.requested:
                        break
        finally:
            self.engine.cancel(generation)
        speed = len(generation.tokens) / (time.perf_counter() - began)
        if not last.endswith("\n"):
            write("\n")
        _style(f"[{self._take(generation)}, {speed:,.0f} tokens/s]", _DIM)
        self.options = replace(self.options, seed=self.options.seed + 1)

    def _take(self, generation: Generation) -> str:
        """Append a continuation to the text, and return how it ended."""
        count = f"{len(generation.tokens):,} tokens, seed {generation.options.seed}"
        if generation.cropped and not self._cropping_said:
            self._cropping_said = True
            count += f", only the last {len(generation.prompt):,} tokens before them were read"
        if generation.finish_reason == "stop" and not generation.stream.stopped:
            self.text = []
            return f"end of the document, the next text begins a new one; {count}"
        tokens, reason = generation.tokens, ""
        if generation.finish_reason == "stop":
            tokens, reason = self.engine.tokenizer.encode(generation.text), "at a stop text; "
        elif generation.finish_reason == "cancelled":
            reason = "interrupted; "
        self.text = self.text + tokens
        return reason + count


def _say(lines: str) -> None:
    print(lines, flush=True)


def _style(text: str, style: str, end: str = "\n") -> None:
    """Print text in a style where the terminal has it and the user wants it."""
    styled = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    if styled and not os.environ.get("NO_COLOR"):
        text = f"{style}{text}{_PLAIN}"
    print(text, end=end, flush=True)
