"""Downloads that survive broken connections: resumed, checked, published whole or not at all."""

import hashlib
import json
import os
import re
import time
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from urllib.parse import unquote, urlsplit

import requests
import urllib3

from lmlab.data.cache import locked, storage_errors
from lmlab.data.config import RemoteFile
from lmlab.data.progress import bar, say
from lmlab.errors import DataError
from lmlab.files import atomic_write, fsync_directory

ATTEMPTS = 5
"""Failures in a row, none of which brought the file further, before giving up."""
PAUSE = 1.0
"""Seconds before the second attempt; doubled before each further one."""
TIMEOUT = (15, 60)
"""Seconds to wait for a connection, and for the next bytes."""
BLOCK = 1 << 18
# Client errors that are worth another try.
PASSING = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS)


class _Broken(Exception):
    """This attempt failed; the next may not."""


def download_all(
    files: Mapping[str, RemoteFile], directory: Path, *, license: str, progress: bool
) -> list[Path]:
    """Return local copies of `files` (configuration key -> file), fetching what is missing.

    The licence is shown once, before the first byte is fetched. Raises DataError where a file
    cannot be had.
    """
    with storage_errors(directory, "downloading"):
        directory.mkdir(parents=True, exist_ok=True)
        with locked(directory / ".lock", f"downloading to {directory}"):
            notice = directory / "LICENSE.txt"
            if not notice.exists():
                say(license)
                with atomic_write(notice) as out:
                    out.write(license + "\n")
            return [_Download(key, file, directory, progress).run() for key, file in files.items()]


class _Download:
    """One file on its way: NAME.part grows, NAME.json says of which source it is a part."""

    def __init__(self, key: str, file: RemoteFile, directory: Path, progress: bool) -> None:
        name = Path(unquote(urlsplit(file.url).path)).name or "download"
        self.key, self.file, self.progress = key, file, progress
        self.target = directory / name
        self.part = directory / f"{name}.part"
        self.record = directory / f"{name}.json"

    def run(self) -> Path:
        record = self._read_record()
        url = record.get("url")
        if self.target.exists():
            if url == self.file.url and record.get("sha256") == self.file.sha256:
                return self.target
            # Without a record, somebody brought it here for a machine that has no network.
            if url in (None, self.file.url) and self._trusted(self.target):
                self._write_record(None)
                return self.target
        if url != self.file.url:
            self.part.unlink(missing_ok=True)
        pieces = 1 if self._size() == 0 else 2
        while True:
            self._fetch()
            if self.file.sha256 is None or (actual := self._sha256(self.part)) == self.file.sha256:
                break
            self.part.unlink()
            if pieces == 1:
                raise DataError(
                    f"{self.file.url}: its sha256 is {actual}, not {self.file.sha256}; nothing is "
                    f"kept: if you trust what is there now, set {self.key}.sha256={actual}"
                )
            say(f"{self.part}: its pieces do not fit together; downloading it again from the start")
            pieces = 1
        with self.part.open("rb") as file:
            os.fsync(file.fileno())
        self.part.replace(self.target)
        fsync_directory(self.target.parent)
        return self.target

    def _fetch(self) -> None:
        """Bring the part to its full length, over as many connections as it takes."""
        failures, furthest = 0, self._size()
        while True:
            try:
                return self._attempt()
            except (_Broken, requests.RequestException, urllib3.exceptions.HTTPError) as error:
                size = self._size()
                failures = 1 if size > furthest else failures + 1
                furthest = max(size, furthest)
                if failures >= ATTEMPTS:
                    raise DataError(
                        f"{self.file.url}: the download fails ({_reason(error)}); "
                        f"{size:,} bytes are kept, start again to go on, or bring the file to "
                        f"{self.target} by other means"
                    ) from None
                time.sleep(PAUSE * 2 ** (failures - 1))

    def _attempt(self) -> None:
        have = self._size()
        headers = {"Accept-Encoding": "identity"}
        validator = self._read_record().get("validator")
        if have and (validator or self.file.sha256):
            headers["Range"] = f"bytes={have}-"
            if validator:
                headers["If-Range"] = validator  # a file that changed meanwhile comes whole
        with requests.get(self.file.url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
            begin, total = self._span(answer, have)
            if begin == total:
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
        given = re.fullmatch(
            r"bytes (?:(\d+)-\d+|\*)/(\d+)", answer.headers.get("Content-Range", "")
        )
        if status == HTTPStatus.OK:
            length = answer.headers.get("Content-Length", "")
            return 0, int(length) if length.isdecimal() else None
        if status == HTTPStatus.PARTIAL_CONTENT and given and given[1] == str(have):
            return have, int(given[2])
        if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and given and given[2] == str(have):
            return have, have  # it was complete already
        if status in (HTTPStatus.PARTIAL_CONTENT, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE):
            self.part.unlink(missing_ok=True)
            raise _Broken("the server resumes elsewhere than asked")
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in PASSING:
            raise _Broken(f"the server answers {status} {answer.reason}")
        raise DataError(
            f"{self.file.url}: the server answers {status} {answer.reason}; correct "
            f"{self.key}.url, "
            f"or bring the file to {self.target} by other means"
        )

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _trusted(self, path: Path) -> bool:
        return self.file.sha256 is None or self._sha256(path) == self.file.sha256

    def _read_record(self) -> dict[str, str | None]:
        try:
            record = json.loads(self.record.read_text())
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}

    def _write_record(self, validator: str | None) -> None:
        with atomic_write(self.record) as out:
            json.dump({**self.file.model_dump(), "validator": validator}, out)

    def _sha256(self, path: Path) -> str:
        digest = hashlib.sha256()
        shown = bar(f"checking {self.target.name}", path.stat().st_size, self.progress)
        with shown, path.open("rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
                shown.update(len(block))
        return digest.hexdigest()


def _validator(answer: requests.Response) -> str | None:
    """Return what If-Range may name: a strong tag, else the last change (RFC 9110, 13.1.5)."""
    tag = answer.headers.get("ETag", "")
    return tag if tag.startswith('"') else answer.headers.get("Last-Modified")


def _reason(error: Exception) -> str:
    """Return the innermost cause, which names the trouble; what wraps it repeats the address."""
    while isinstance(inner := error.__cause__ or error.__context__, Exception):
        error = inner
    return str(getattr(error, "strerror", None) or error) or type(error).__name__
