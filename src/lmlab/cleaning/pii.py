"""Personal information: e-mail addresses, US phone numbers and IPv4 addresses are masked."""

import re
from collections.abc import Sequence

from lmlab.cleaning.config import PiiConfig
from lmlab.cleaning.document import Document

# Every pattern begins with a class of characters, which `re` finds faster than a look behind; what
# must not stand before it is tested after it. Parts are bounded, so that time is linear.
_EMAIL = re.compile(
    r"[A-Za-z0-9_%+-](?<![A-Za-z0-9_%+-].)[A-Za-z0-9._%+-]{0,63}@"
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,62})\.){1,8}[A-Za-z]{2,63}"
)
_PHONE = re.compile(
    r"[0-9(+](?:(?<=\()[0-9]{3}\)|(?<![A-Za-z0-9_].)(?<![0-9][-.].)"
    r"(?:(?<=\+)1[-. ]?[0-9]{3}|(?<=1)[-. ][0-9]{3}|(?<=[0-9])[0-9]{2}))"
    r"[-. ]?[0-9]{3}[-. ]?[0-9]{4}"
    r"(?![A-Za-z0-9_])(?![-.][0-9])"
)
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IP = re.compile(
    r"[0-9](?<![0-9].)(?<![0-9]\..)(?:(?<=2)(?:5[0-5]|[0-4][0-9])|(?<=1)[0-9]{2}|(?<=[1-9])[0-9])?"
    rf"(?:\.{_OCTET}){{3}}(?![0-9])(?!\.[0-9])"
)
_INNER_OCTETS = re.compile(r"\.[0-9]{1,3}\.[0-9]{1,3}\.")  # few texts have any: a quick test


def mask_emails(text: str) -> tuple[str, int]:
    """Return the text with e-mail addresses as |||EMAIL_ADDRESS|||, and how many there were."""
    return _EMAIL.subn("|||EMAIL_ADDRESS|||", text) if "@" in text else (text, 0)


def mask_phone_numbers(text: str) -> tuple[str, int]:
    """Return the text with US phone numbers as |||PHONE_NUMBER|||, and how many there were.

    2831823829, (283)-182-3829, (283) 182 3829, 283-182-3829, and the like with full stops, 1 or +1,
    as in +12831823829.
    """
    return _PHONE.subn("|||PHONE_NUMBER|||", text)


def mask_ips(text: str) -> tuple[str, int]:
    """Return the text with IPv4 addresses as |||IP_ADDRESS|||, and how many there were."""
    return _IP.subn("|||IP_ADDRESS|||", text) if _INNER_OCTETS.search(text) else (text, 0)


class Pii:
    """Masks what the configuration names, in the order e-mail, phone, IP."""

    def __init__(self, config: PiiConfig) -> None:
        self.name = config.step_name
        masks = {"emails": mask_emails, "phone_numbers": mask_phone_numbers, "ips": mask_ips}
        self._masks = {name: mask for name, mask in masks.items() if getattr(config, name)}

    def __call__(self, documents: Sequence[Document]) -> list[Document]:
        """Mask each document's text; the scores are how many of each were found."""
        for document in documents:
            for name, mask in self._masks.items():
                document.text, count = mask(document.text)
                document.scores[f"{self.name}.{name}"] = float(count)
        return list(documents)
