"""Patterns between the `regex` package, Oniguruma (in `tokenizers`) and Rust (in `tiktoken`).

What both read alike is kept, what has an equal is translated, everything else is refused.
"""

import regex

from lmlab.errors import UserError

# Oniguruma's \\w has no U+200C and U+200D, but outside of sets six numbers of Latin-1.
_COMMON = r"\p{Alphabetic}\p{M}\p{Nd}\p{Pc}"
_WORD = {"from": _COMMON + "²³¹¼½¾", "to": _COMMON + "\u200c\u200d"}
_WORD_IN_SET = {"from": _COMMON, "to": _WORD["to"]}
_READER = {"from": "tokenizers (Oniguruma)", "to": "tokenizers (Oniguruma)", "rust": "tiktoken"}
_SAME_GROUPS = ("?:", "?=", "?!", "?<=", "?<!", "?>", "?i:")
_SAME_ESCAPES = "sSdDtnrf"
_CATEGORY = regex.compile(r"\{\^?(?:[LMNPSZC][a-z&]?|Alphabetic|Han|Hiragana|Katakana|Hangul|Latin|"
                          r"Greek|Cyrillic|Arabic|Hebrew|Thai|Devanagari)\}")  # fmt: skip
_COUNT = regex.compile(r"\{\d+(?:,\d*)?\}")
_FOLDS = regex.compile(r"(?i)ss|ff|fi|fl|st")  # one letter, such as ß, is these two in another case


def from_oniguruma(pattern: str) -> str:
    """The same pattern for `regex`; one that is broken or has no equal is a UserError."""
    translated = _translate(pattern, "from")
    try:
        compiled = regex.compile(translated)
    except regex.error as error:
        reason = str(error).partition(" at position")[0]  # that of the translated pattern
        raise UserError(f"pattern {pattern!r} is broken: {reason}") from None
    if compiled.fullmatch(""):
        raise UserError(f"pattern {pattern!r} matches the empty string, which is not supported")
    return translated


def from_rust(pattern: str) -> str:
    """The same pattern, as tiktoken reads it, for `regex`; else a UserError that names why."""
    return _translate(pattern, "rust")


def to_oniguruma(pattern: str) -> str:
    """The same pattern for Oniguruma; one without an equal is a UserError that names why."""
    return _translate(pattern, "to")


def _translate(pattern: str, direction: str) -> str:
    """Go through the pattern construct by construct."""

    def refuse(construct: str) -> UserError:
        return UserError(
            f"pattern {pattern!r}: {construct!r} means different things to {_READER[direction]} "
            "and to the regex package; write it in another way"
        )

    rust = direction == "rust"
    word = _WORD.get(direction, "")
    back = _WORD["to" if direction == "from" else "from"]
    if not rust and "(?i" in pattern and (found := _FOLDS.search(pattern)):
        raise refuse(found.group() + " in any case")
    out: list[str] = []
    i = 0
    in_set = False
    while i < len(pattern):
        c = pattern[i]
        rest = pattern[i:]
        length = 1
        text = c
        if c == "\\":
            kind = pattern[i + 1 : i + 2]
            length = 2
            if kind in ("p", "P") and (match := _CATEGORY.match(pattern, i + 2)):
                length = match.end() - i
                text = rest[:length]
            elif rust and kind and kind in "wW":
                text = rest[:2]
            elif kind == "w" or (kind == "W" and not in_set):
                negation = "^" if kind == "W" else ""
                text = _WORD_IN_SET[direction] if in_set else f"[{negation}{word}]"
            elif kind and not in_set and kind == ("Z" if direction == "to" else "z"):
                text = r"\z" if kind == "Z" else r"\Z"  # the end of the text
            elif kind in _SAME_ESCAPES or (kind and not kind.isalnum() and kind.isascii()):
                text = rest[:2]
            elif kind == "u" and regex.match(r"\\u[0-9A-Fa-f]{4}", rest):
                length = 6
                text = rest[:6]
            else:
                raise refuse(rest[:2])
        elif in_set:
            if c == "]":
                in_set = False
            elif c == "[":
                if direction != "to":
                    raise refuse("[ inside a set")
                text = r"\["
            elif rest[:2] in ("&&", "--", "||", "~~"):
                raise refuse(rest[:2])
        elif c == "[":
            negation = "^" if rest[1:2] == "^" else ""
            if not rust and rest.startswith(f"[{negation}{back}]"):  # what was \w there
                length = len(negation) + len(back) + 2
                text = r"\W" if negation else r"\w"
            else:
                in_set = True
                length = 1 + len(negation)
                text = rest[:length]
                if rest[length : length + 1] == "]":
                    raise refuse("] at the beginning of a set")
        elif rest.startswith("(?"):
            group = next((each for each in _SAME_GROUPS if rest.startswith(each, 1)), None)
            dot_all = "(?m:" if direction == "from" else "(?s:"  # . matches line breaks too
            if rust and rest.startswith("(?s:"):
                length = 4
                text = "(?s:"
            elif not rust and rest.startswith(dot_all):
                length = 4
                text = "(?s:" if direction == "from" else "(?m:"
            elif group is None:
                raise refuse(rest[:4])
            else:
                length = 1 + len(group)
                text = rest[:length]
        elif c == "{":
            if (match := _COUNT.match(rest)) is None:
                raise refuse(rest[:4])
            length = match.end()
            text = rest[:length]
            if not rust and rest[length : length + 1] in ("+", "?"):
                raise refuse(rest[: length + 1])
        elif c == "$":
            # Of Oniguruma the end of any line; of `regex` also the end before a last line break.
            text = {"from": r"(?=\n|\Z)", "to": r"(?=\n?\z)", "rust": r"\Z"}[direction]
        elif c == "^":
            if direction == "from":
                raise refuse("^")
            text = r"\A"
        out.append(text)
        i += length
    return "".join(out)
