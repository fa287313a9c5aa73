"""Responses that end when their client leaves, and server-sent events."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from lmlab.serving.errors import ApiError

T = TypeVar("T")


class ClientGone(Exception):
    """The client has closed its connection; nobody reads the response."""


async def while_connected(receive: Receive, work: Awaitable[T]) -> T:
    """Return the result of `work`; cancels it and raises ClientGone when the client leaves."""
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_disconnect(receive))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientGone
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """Sends JSON objects as events, and `[DONE]` after the last one.

    An ApiError is sent as a last event. `close` is called at the end, also when the client leaves.
    """

    def __init__(self, events: AsyncIterator[dict[str, Any]], close: Callable[[], None]) -> None:
        super().__init__(
            media_type="text/event-stream",
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
        )
        del self.headers["content-length"]
        self.events, self.close = events, close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        try:
            await send(start)
            await while_connected(receive, self._send(send))
        except ClientGone:
            return
        finally:
            self.close()

    async def _send(self, send: Send) -> None:
        async def event(text: str, more: bool = True) -> None:
            data = f"data: {text}\n\n".encode()
            await send({"type": "http.response.body", "body": data, "more_body": more})

        try:
            async for item in self.events:
                await event(json.dumps(item, ensure_ascii=False, separators=(",", ":")))
        except ApiError as error:
            await event(json.dumps(error.body), more=False)
        else:
            await event("[DONE]", more=False)
