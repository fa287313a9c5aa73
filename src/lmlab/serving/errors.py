"""Errors of the interface, in the shape that OpenAI's clients read."""

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse

INVALID, SERVER = "invalid_request_error", "server_error"


class ApiError(Exception):
    """A request that is refused or failed: an HTTP status and an error object."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        kind: str = INVALID,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers
        self.body: dict[str, Any] = {
            "error": {"message": message, "type": kind, "param": param, "code": code}
        }

    def response(self) -> JSONResponse:
        """Return the response to send."""
        return JSONResponse(self.body, self.status, self.headers)


def overloaded(open_sequences: int) -> ApiError:
    """Return the error of a full queue; clients may try again after a second."""
    return ApiError(
        429,
        f"The queue is full: {open_sequences} sequences are generated or wait. Try again later.",
        code="rate_limit_exceeded",
        kind="rate_limit_error",
        headers={"Retry-After": "1"},
    )


def stopping() -> ApiError:
    """Return the error of requests that a stopping server does not finish."""
    return ApiError(503, "The server is stopping.", kind=SERVER, code="server_stopping")
