"""A client of the course's training API, local or remote."""

from collections.abc import Callable
from typing import Any, TypeVar

import requests

from lmlab.errors import UserError
from lmlab.scaling.trial import Config, Trial

T = TypeVar("T")
TIMEOUT = 60
"""Seconds for an answer."""


class ApiClient:
    """Asks a training API for losses; raises UserError for what it refuses."""

    def __init__(self, url: str, key: str) -> None:
        self.url, self.key = url.rstrip("/"), key

    def run(self, config: Config) -> float:
        """Return the loss of a configuration."""
        return self._get("loss", config.to_dict(), lambda answer: float(answer["loss"]))

    def total_flops_used(self) -> float:
        """Return the FLOPs that the key has spent."""
        return self._get("total_flops_used", {}, float)

    def previous_runs(self) -> list[Trial]:
        """Return the runs that the key has made."""

        def trials(answer: Any) -> list[Trial]:
            runs = answer["previous_runs"]
            return [Trial(Config.from_dict(run), float(run["loss"])) for run in runs]

        return self._get("previous_runs", {}, trials)

    def _get(self, path: str, values: dict[str, Any], parse: Callable[[Any], T]) -> T:
        try:
            answer = requests.get(
                f"{self.url}/{path}", {**values, "api_key": self.key}, timeout=TIMEOUT
            )
        except requests.RequestException as error:
            raise UserError(
                f"no answer from {self.url}/{path} ({type(error).__name__}); "
                "start it with `lmlab scaling serve`, or check --server"
            ) from error
        try:
            content = answer.json()
        except ValueError:
            content = None
        if answer.status_code == 200 and content is not None:
            try:
                return parse(content)
            except (KeyError, TypeError, ValueError) as error:
                raise UserError(
                    f"{self.url}/{path} answers {str(content)[:80]}, which is not of a training "
                    "API; check --server"
                ) from error
        message = content if isinstance(content, dict) else {}
        text = message.get("message") or message.get("detail") or answer.reason
        if answer.status_code == 401:
            raise UserError(f"{self.url} refuses the key: {text}; give its own with --api-key")
        raise UserError(f"{self.url}/{path} answers {answer.status_code}: {text}")
