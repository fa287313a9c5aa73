"""Separators as they are written on a command line or in YAML: text with escapes."""

import re

_CHARACTERS = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "\\": "\\"}
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|(.?))", re.DOTALL)


def decode_separator(written: str) -> str:
    r"""Return the text that `written` stands for.

    Escapes are \n, \r, \t, \f, \\, \xHH and \uHHHH; every other character stands for itself.
    Raises ValueError for an unknown escape, and for \n, \r, \t or \f before a letter, which may
    mean a command such as \newpage.
    """

    def character(match: re.Match[str]) -> str:
        digits, name = match[1] or match[2], match[3]
        if digits:
            value = chr(int(digits, 16))
            if "\ud800" <= value <= "\udfff":
                raise ValueError(f"{match[0]} is half a surrogate pair, not a character")
            return value
        rest = written[match.end() :]
        if name not in _CHARACTERS:
            raise ValueError(
                f"{match[0]!s} is not an escape (known: \\n \\r \\t \\f \\\\ \\xHH \\uHHHH); "
                f"write \\x5c{name} for a backslash"
            )
        decoded = _CHARACTERS[name]
        if name != "\\" and rest[:1].isalpha():
            word = name + rest.split()[0]
            raise ValueError(
                f"\\{word} is ambiguous; write \\x5c{word} for a backslash and {word}, or "
                f"\\x{ord(decoded):02x}{word[1:]} for the escape {match[0]} and {word[1:]}"
            )
        return decoded

    return _ESCAPE.sub(character, written)
