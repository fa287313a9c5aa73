"""The routes of the server."""

import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from functools import partial
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lmlab.generation.options import Options
from lmlab.serving.choices import Choice
from lmlab.serving.errors import SERVER, ApiError
from lmlab.serving.formats import ChatFormat, CompletionFormat, usage
from lmlab.serving.models import Prompt, ServedModel
from lmlab.serving.protocol import ChatRequest, CompletionRequest, Request, parse
from lmlab.serving.streaming import ClientGone, EventStream, while_connected
from lmlab.serving.worker import Scored, Ticket

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PAGE = {
    "html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml",
}  # fmt: skip
"""Kinds of the page's files."""


def build_app(models: Sequence[ServedModel]) -> Starlette:
    """Return the application: the interface under `/v1`, `/health` and the page under `/`."""
    api = Api(models)
    routes = [
        Route("/v1/completions", api.completions, methods=["POST"]),
        Route("/v1/chat/completions", api.chat, methods=["POST"]),
        Route("/v1/models", api.list_models),
        Route("/v1/models/{name:path}", api.get_model),
        Route("/health", api.health),
        Route("/", partial(page_file, name="index.html")),
        Route("/page/{name}", page_file),
    ]
    handlers: Any = {
        ApiError: _api_error,
        ClientGone: _client_gone,
        HTTPException: _http_error,
        Exception: _fault,
    }
    return Starlette(routes=routes, exception_handlers=handlers)


class Api:
    """The interface for a list of models."""

    def __init__(self, models: Sequence[ServedModel]) -> None:
        self.models = {model.name: model for model in models}

    def find(self, name: str | None) -> ServedModel:
        """Return a model, the first one for None; raises ApiError (404) for an unknown name."""
        if name is None:
            return next(iter(self.models.values()))
        if name not in self.models:
            served = ", ".join(self.models)
            message = f"The model '{name}' does not exist. Served: {served}."
            raise ApiError(404, message, param="model", code="model_not_found")
        return self.models[name]

    async def list_models(self, request: HttpRequest) -> Response:
        """Answer `/v1/models`."""
        facts = [model.facts() for model in self.models.values()]
        return JSONResponse({"object": "list", "data": facts})

    async def get_model(self, request: HttpRequest) -> Response:
        """Answer `/v1/models/NAME`."""
        return JSONResponse(self.find(request.path_params["name"]).facts())

    async def health(self, request: HttpRequest) -> Response:
        """Answer `/health`: sequences that each engine holds, and the most that it takes."""
        loads = {
            name: {"running": model.worker.running, "capacity": model.worker.capacity}
            for name, model in self.models.items()
        }
        return JSONResponse({"status": "ok", "models": loads})

    async def completions(self, http: HttpRequest) -> Response:
        """Answer `/v1/completions`."""
        request = parse(CompletionRequest, await http.body())
        model = self.find(request.model)
        prompts = model.prompts(request.prompt)
        format_ = CompletionFormat(model, request.logprobs is not None)
        answer = Answer(model, request, prompts, format_, request.max_tokens, request.logprobs)
        if request.echo:
            await while_connected(http.receive, answer.score())
        return await answer.response(http)

    async def chat(self, http: HttpRequest) -> Response:
        """Answer `/v1/chat/completions`."""
        request = parse(ChatRequest, await http.body())
        model = self.find(request.model)
        prompts = model.prompts(model.chat.prompt(request.messages), param="messages")
        limit = request.max_completion_tokens or request.max_tokens or model.context_length
        logprobs = (request.top_logprobs or 0) if request.logprobs else None
        format_ = ChatFormat(model, request.logprobs)
        answer = Answer(model, request, prompts, format_, limit, logprobs, model.chat.stop)
        return await answer.response(http)


class Answer:
    """The work for one request: its choices, and the sequences that the engine generates."""

    def __init__(
        self,
        model: ServedModel,
        request: Request,
        prompts: Sequence[Prompt],
        format_: CompletionFormat,
        max_tokens: int,
        logprobs: int | None,
        stop: tuple[str, ...] = (),
    ) -> None:
        model.worker.check_size(len(prompts) * request.n)
        self.model, self.request, self.prompts, self.format = model, request, prompts, format_
        self.logprobs = logprobs
        self.echoes: list[Sequence[Scored]] | None = None
        pairs = [(prompt, i) for prompt in prompts for i in range(request.n)]
        self.choices = [Choice(model, i, prompt) for i, (prompt, _) in enumerate(pairs)]
        self.sequences: list[tuple[list[int], Options]] = []
        if max_tokens:
            for prompt in prompts:
                first = request.options(min(max_tokens, model.room(prompt)), logprobs, stop)
                for i in range(request.n):
                    self.sequences.append((prompt.ids, replace(first, seed=first.seed + i)))

    async def score(self) -> None:
        """Let the choices begin with their prompts."""
        if self.logprobs is None:
            self.echoes = [()] * len(self.prompts)
        else:
            ids = [prompt.ids for prompt in self.prompts]
            self.echoes = list(await self.model.worker.score(ids, self.logprobs))

    async def response(self, http: HttpRequest) -> Response:
        """Queue the sequences and return the response; raises ApiError and ClientGone."""
        ticket = self.model.worker.submit(self.sequences)
        if self.request.stream:
            return EventStream(self._events(ticket), ticket.cancel)
        try:
            return JSONResponse(await while_connected(http.receive, self._whole(ticket)))
        finally:
            ticket.cancel()

    async def _whole(self, ticket: Ticket) -> dict[str, Any]:
        for choice in self.choices:
            self._begin(choice)
        async for update in ticket:
            self.choices[update.index].add(update)
        return self.format.response(self.choices, self._usage())

    async def _events(self, ticket: Ticket) -> AsyncIterator[dict[str, Any]]:
        options = self.request.stream_options
        counted = options is not None and options.include_usage
        unused = {"usage": None} if counted else {}
        for choice in self.choices:
            opening = self.format.opening(choice)
            if opening is not None:
                yield self.format.chunk([opening]) | unused
            echo = self._begin(choice)
            if echo is not None:
                yield self.format.chunk([echo]) | unused
        async for update in ticket:
            choice = self.choices[update.index]
            part = choice.add(update)
            if part.text or part.tokens or choice.finish_reason:
                delta = self.format.delta(choice, part, choice.finish_reason)
                yield self.format.chunk([delta]) | unused
        if counted:
            yield self.format.chunk([]) | {"usage": self._usage()}

    def _begin(self, choice: Choice) -> dict[str, Any] | None:
        if self.echoes is None:
            return None
        part = choice.echo(self.echoes[choice.index // self.request.n])
        if not self.sequences:
            choice.finish_reason = "length"
        return self.format.delta(choice, part, choice.finish_reason)

    def _usage(self) -> dict[str, int]:
        return usage(self.choices, self.request.n)


async def page_file(request: HttpRequest, name: str | None = None) -> Response:
    """Answer with a file of the page."""
    name = name or request.path_params["name"]
    kind = PAGE.get(name.rpartition(".")[2])
    file = files("lmlab.serving") / "page" / name
    if kind is None or not re.fullmatch(r"[\w-]+\.\w+", name) or not file.is_file():
        raise HTTPException(404)
    headers = {
        "Content-Security-Policy": POLICY,
        "Cache-Control": "no-cache",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
    return Response(file.read_bytes(), media_type=kind, headers=headers)


async def _api_error(request: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error.response()


async def _client_gone(request: HttpRequest, error: Exception) -> Response:
    return Response(status_code=400)  # which nobody receives


async def _http_error(request: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"Invalid URL ({request.method} {request.url.path})"
    if error.status_code == 405:
        message = f"{request.method} is not allowed for {request.url.path}"
    return ApiError(error.status_code, message, headers=error.headers).response()


async def _fault(request: HttpRequest, error: Exception) -> Response:
    return ApiError(500, "The server failed; see its output.", kind=SERVER).response()
