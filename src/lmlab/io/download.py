"""Downloads that survive broken connections: resumed, checked, published whole or not at all."""

import hashlib
import json
import os
import re
import time
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import requests
import urllib3

from lmlab.errors import DataError
from lmlab.files import atomic_write, fsync_directory
from lmlab.io.compression import SUFFIXES, compression_of
from lmlab.io.progress import bar, say

ATTEMPTS = 5
"""Failures in a row, none of which brought new bytes, before the download is given up."""
PAUSE = 1.0
"""Seconds before the second attempt; doubled before each further one."""
TIMEOUT = (15, 60)
"""Seconds to wait for a connection, and for the next bytes."""
BLOCK = 1 << 18
_RETRIED = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS)
_HEAD = 1024
_HTML = re.compile(
    rb"(\xef\xbb\xbf)?\s*(<!--.*?-->\s*)*<(!doctype\s+html|html|head)\b", re.I | re.S
)


class _Broken(Exception):
    """This attempt failed; the next may succeed."""


@dataclass(frozen=True)
class Remote:
    """A file on the web, and the configuration keys that describe it."""

    url: str
    sha256: str | None
    """Expected hash of the content; None: unchecked."""
    url_key: str
    sha256_key: str


def download(remote: Remote, target: Path, *, progress: bool) -> None:
    """Download `remote` to `target` unless it is there, resuming an earlier download.

    The caller holds a lock. A file that was copied to `target` by other means is used when its hash
    is the expected one. Raises DataError when the file is not available, is empty, has another
    hash, or is a web page or no archive although its name says otherwise; OSError for the disk.
    """
    _Download(remote, target, progress).run()


class _Download:
    """One download: `.part` grows, `.json` records the URL that it is a part of."""

    def __init__(self, remote: Remote, target: Path, progress: bool) -> None:
        self.remote, self.target, self.progress = remote, target, progress
        self.part = target.with_name(f"{target.name}.part")
        self.record = target.with_name(f"{target.name}.json")

    def run(self) -> None:
        record = self._read_record()
        url = record.get("url")
        if self.target.exists():
            if (problem := _wrong_content(self.target, self.remote.url)) is not None:
                say(f"{self.target} {problem}; downloading it again")
            elif url == self.remote.url and record.get("sha256") == self.remote.sha256:
                return
            # Without a record, it was copied here by other means.
            elif url in (None, self.remote.url) and self._matches(self.target):
                self._write_record(None)
                return
        if url != self.remote.url:
            self.part.unlink(missing_ok=True)
        resumed = self._size() > 0
        while True:
            self._fetch()
            if not self._rejected(resumed):
                break
            say(f"{self.part}: its pieces do not fit together; downloading it again from the start")
            self.part.unlink()
            resumed = False
        with self.part.open("rb") as file:
            os.fsync(file.fileno())
        self.part.replace(self.target)
        fsync_directory(self.target.parent)

    def _rejected(self, resumed: bool) -> bool:
        """Return whether a resumed download does not have the expected hash.

        Raises DataError, and removes the part, when downloading again cannot help.
        """
        actual = None if self.remote.sha256 is None else self._sha256(self.part)
        if actual is not None and actual == self.remote.sha256:
            return False
        if actual is not None and resumed:
            return True
        remote, problem = self.remote, _wrong_content(self.part, self.remote.url)
        if problem is None and actual is None:
            return False
        self.part.unlink()
        if problem is not None:
            raise DataError(
                f"{remote.url}: {problem}; nothing is kept: correct {remote.url_key}, or copy the "
                f"file to {self.target}"
            )
        raise DataError(
            f"{remote.url}: its sha256 is {actual}, not {remote.sha256}; nothing is kept: if you "
            f"trust the new content, set {remote.sha256_key}={actual}"
        )

    def _fetch(self) -> None:
        """Download the part to its full length, over as many connections as it takes."""
        failures, furthest = 0, self._size()
        while True:
            try:
                return self._attempt()
            except (_Broken, requests.RequestException, urllib3.exceptions.HTTPError) as error:
                size = self._size()
                failures = 1 if size > furthest else failures + 1
                furthest = max(size, furthest)
                if failures >= ATTEMPTS or isinstance(error, ValueError):  # no valid URL
                    raise DataError(
                        f"{self.remote.url}: the download failed ({_reason(error)}); "
                        f"{size:,} bytes are kept: start again to resume, or copy the file to "
                        f"{self.target}"
                    ) from None
                time.sleep(PAUSE * 2 ** (failures - 1))

    def _attempt(self) -> None:
        have = self._size()
        headers = {"Accept-Encoding": "identity"}
        validator = self._read_record().get("validator")
        if have and (validator or self.remote.sha256):
            headers["Range"] = f"bytes={have}-"
            if validator:
                headers["If-Range"] = validator  # a file that has changed is sent whole
        with requests.get(self.remote.url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
            begin, total = self._span(answer, have)
            if begin == total and have:
                return
            if begin == 0:
                self._write_record(_validator(answer))
            shown = bar(f"downloading {self.target.name}", total, self.progress, initial=begin)
            with shown, self.part.open("ab" if begin else "wb") as out:
                for block in answer.raw.stream(BLOCK, decode_content=False):
                    out.write(block)
                    shown.update(len(block))
        if total is not None and self._size() != total:
            raise _Broken(f"the connection closed after {self._size():,} of {total:,} bytes")

    def _span(self, answer: requests.Response, have: int) -> tuple[int, int | None]:
        """Return where the answer's bytes begin in the file, and the length of the whole file."""
        status = answer.status_code
        content_range = re.fullmatch(
            r"bytes (?:(\d+)-\d+|\*)/(\d+)", answer.headers.get("Content-Range", "")
        )
        if status == HTTPStatus.OK:
            length = answer.headers.get("Content-Length", "")
            return 0, int(length) if length.isdecimal() else None
        if content_range:
            begin, total = content_range.groups()
            if status == HTTPStatus.PARTIAL_CONTENT and begin == str(have):
                return have, int(total)
            if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and total == str(have):
                return have, have  # it was complete already
        if status in (HTTPStatus.PARTIAL_CONTENT, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE):
            self.part.unlink(missing_ok=True)
            raise _Broken("the server resumes at another place than asked")
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _RETRIED:
            raise _Broken(f"the server answers {status} {answer.reason}")
        raise DataError(
            f"{self.remote.url}: the server answers {status} {answer.reason}; correct "
            f"{self.remote.url_key}, or copy the file to {self.target}"
        )

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _matches(self, path: Path) -> bool:
        return self.remote.sha256 is None or self._sha256(path) == self.remote.sha256

    def _read_record(self) -> dict[str, str | None]:
        try:
            record = json.loads(self.record.read_text())
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}

    def _write_record(self, validator: str | None) -> None:
        record = {"url": self.remote.url, "sha256": self.remote.sha256, "validator": validator}
        with atomic_write(self.record) as out:
            json.dump(record, out)

    def _sha256(self, path: Path) -> str:
        digest = hashlib.sha256()
        shown = bar(f"checking {self.target.name}", path.stat().st_size, self.progress)
        with shown, path.open("rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
                shown.update(len(block))
        return digest.hexdigest()


def _wrong_content(path: Path, url: str) -> str | None:
    """Return what is wrong with a file that was downloaded from `url`; None: it looks right."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not head:
        return "is empty"
    suffix = Path(url.partition("?")[0]).suffix.lower()
    if _HTML.match(head) and not suffix.startswith(".htm"):
        return "is a web page, not the file: the server may want a login or an agreement"
    if suffix in SUFFIXES and compression_of(head) is None:
        return f"is named {suffix} but is not compressed that way"
    return None


def _validator(answer: requests.Response) -> str | None:
    """Return what If-Range may name: a strong tag, else the last change (RFC 9110, 13.1.5)."""
    tag = answer.headers.get("ETag", "")
    return tag if tag.startswith('"') else answer.headers.get("Last-Modified")


def _reason(error: Exception) -> str:
    """Return the innermost cause; the errors around it repeat the URL."""
    while isinstance(inner := error.__cause__ or error.__context__, Exception):
        error = inner
    return str(getattr(error, "strerror", None) or error) or type(error).__name__
