"""The interface, as OpenAI's own client reads it."""

import asyncio
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import openai
import pytest
import torch
from openai import AsyncOpenAI, OpenAI

from lmlab.generation.generate import generate
from lmlab.generation.options import Options
from lmlab.loading import TrainedRun, load
from lmlab.serving.choices import Choice
from lmlab.serving.errors import ApiError
from lmlab.serving.models import ServedModel
from lmlab.serving.worker import Scored, Update
from lmlab.tokenizer import Tokenizer
from serving.running import LINE, Running, Start


@pytest.fixture(scope="module")
def client(served: Running) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as it:
        yield it


@pytest.fixture(scope="module")
def run(trained: Path) -> TrainedRun:
    return load(trained)


def expected(run: TrainedRun, prompt: str, **options: object) -> str:
    """Return what the engine writes by itself."""
    given = Options(**options)  # type: ignore[arg-type]
    return generate(run.model, run.tokenizer, [prompt], given, dtype="fp32")[0].text


def test_models(client: OpenAI) -> None:
    (model,) = client.models.list().data
    assert (model.id, model.object, model.owned_by) == ("lines", "model", "lmlab")
    assert client.models.retrieve("lines") == model
    with pytest.raises(openai.NotFoundError) as error:
        client.models.retrieve("other")
    assert error.value.code == "model_not_found"


def test_a_completion_is_what_the_engine_generates(client: OpenAI, run: TrainedRun) -> None:
    options = {"temperature": 0.9, "top_p": 0.95, "seed": 5}
    done = client.completions.create(
        model="lines", prompt="<scr", max_tokens=40, **options  # type: ignore[call-overload]
    )  # fmt: skip
    assert done.object == "text_completion"
    assert done.choices[0].text == expected(run, "<scr", max_new_tokens=40, **options)
    assert done.choices[0].finish_reason == "length"
    assert done.choices[0].logprobs is None
    assert done.usage is not None
    usage = (done.usage.prompt_tokens, done.usage.completion_tokens, done.usage.total_tokens)
    assert usage == (4, 40, 44)


def test_own_sampling_options_reach_the_engine(client: OpenAI, run: TrainedRun) -> None:
    own = {"top_k": 3, "min_p": 0.01, "repetition_penalty": 1.3}
    done = client.completions.create(
        model="lines", prompt="a", max_tokens=30, seed=2, temperature=1.5, extra_body=own
    )
    same = expected(run, "a", max_new_tokens=30, seed=2, temperature=1.5, **own)
    assert done.choices[0].text == same


def test_a_stream_is_the_same_text(client: OpenAI) -> None:
    def create(stream: bool) -> object:
        return client.completions.create(
            model="lines", prompt="<scr", max_tokens=60, temperature=0, stream=stream, n=2,
            stop=["more"], stream_options={"include_usage": True} if stream else openai.NOT_GIVEN,
        )  # fmt: skip

    whole, chunks = create(False), list(create(True))  # type: ignore[call-overload]
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage  # type: ignore[attr-defined]
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert len({chunk.id for chunk in chunks}) == 1
    for index in (0, 1):
        parts = [c.choices[0] for c in chunks[:-1] if c.choices[0].index == index]
        assert "".join(p.text for p in parts) == "ipt>alert('é€😀')</script> & "
        assert whole.choices[index].text == "ipt>alert('é€😀')</script> & "  # type: ignore[attr-defined]
        assert [p.finish_reason for p in parts] == [None] * (len(parts) - 1) + ["stop"]


def test_the_events_of_a_stream(served: Running) -> None:
    body = {"prompt": "<scr", "max_tokens": 3, "stream": True, "temperature": 0}
    answer = httpx.post(f"{served.url}/v1/completions", json=body)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    events = answer.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert all(event.startswith('data: {"id":"cmpl-') for event in events[:-2])


def test_prompts_in_all_forms(client: OpenAI, run: TrainedRun) -> None:
    for prompt in (["<scr", "ale"], [run.tokenizer.encode("<scr"), run.tokenizer.encode("ale")]):
        done = client.completions.create(
            model="lines", prompt=prompt, max_tokens=4, n=2, temperature=0
        )
        assert [c.index for c in done.choices] == [0, 1, 2, 3]
        assert [c.text for c in done.choices] == ["ipt>", "ipt>", "rt('", "rt('"]
        assert done.usage is not None
        assert done.usage.prompt_tokens == 7
    ids = client.completions.create(
        model="lines", prompt=run.tokenizer.encode("<scr"), max_tokens=5, temperature=0
    )
    assert ids.choices[0].text == "ipt>a"


def test_an_id_without_a_token_is_refused_as_a_prompt(run: TrainedRun) -> None:
    """Imported vocabularies have gaps."""
    tokenizer = Tokenizer(run.tokenizer.vocab, [], {**run.tokenizer.special_tokens, "<|x|>": 300})
    run = replace(run, tokenizer=tokenizer)
    model = ServedModel(run, "gaps")
    with pytest.raises(ApiError, match="Token 280 is not in the vocabulary"):
        model.prompts([97, 280])
    asyncio.run(model.worker.close())


def test_offsets_are_those_of_the_text_that_the_tokens_say(run: TrainedRun, tmp_path: Path) -> None:
    """A tokenizer with NFC reads e and U+0301 as é."""
    run.tokenizer.to_huggingface(tmp_path / "tokenizer.json")
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps(content | {"normalizer": {"type": "NFC"}}))
    nfc = Tokenizer.from_huggingface(tmp_path / "tokenizer.json")
    model = ServedModel(replace(run, tokenizer=nfc), "nfc")
    (prompt,) = model.prompts("e\u0301x")
    choice = Choice(model, 0, prompt)
    told = choice.echo([Scored(i) for i in prompt.ids])
    assert choice.whole.text == nfc.decode(prompt.ids) == "éx"
    assert [placed.offset for placed in told.tokens] == [0, 0, 1]
    more = choice.add(Update(0, "y", (Scored(ord("y")),)))
    assert [placed.offset for placed in more.tokens] == [2]
    asyncio.run(model.worker.close())


def test_logprobs_of_a_completion(client: OpenAI, run: TrainedRun) -> None:
    """They are those of the model on the whole text, prompt included, by torch alone."""
    prompt = "x€ <scr"
    done = client.completions.create(
        model="lines", prompt=prompt, max_tokens=24, temperature=0.7, seed=3, logprobs=4, echo=True
    )
    choice = done.choices[0]
    told = choice.logprobs
    assert told is not None
    assert told.tokens is not None
    assert told.token_logprobs is not None
    assert told.top_logprobs is not None
    assert told.text_offset is not None
    data = b"".join(bytes(b) for b in told.bytes)  # type: ignore[attr-defined]
    assert data.decode(errors="replace") == choice.text
    assert choice.text.startswith(prompt)
    assert told.tokens[:5] == ["x", r"bytes:\xe2", r"bytes:\x82", r"bytes:\xac", " "]
    assert told.text_offset[:5] == [0, 1, 1, 1, 2]
    ids = run.tokenizer.encode(prompt) + [b[0] for b in told.bytes[len(prompt.encode()) :]]  # type: ignore[attr-defined]
    with torch.no_grad():
        table = run.model(torch.tensor([ids]))[0, :, : run.tokenizer.vocab_size].log_softmax(-1)
    assert told.token_logprobs[0] is None
    assert told.top_logprobs[0] is None
    for at in range(1, len(ids)):
        assert told.token_logprobs[at] == pytest.approx(float(table[at - 1, ids[at]]), abs=1e-4)
        best = table[at - 1].topk(4).values.tolist()
        assert sorted(told.top_logprobs[at].values(), reverse=True) == pytest.approx(best, abs=1e-4)


def test_a_prompt_is_scored_without_generating(client: OpenAI, run: TrainedRun) -> None:
    done = client.completions.create(
        model="lines", prompt=LINE, max_tokens=0, echo=True, logprobs=0
    )
    assert done.choices[0].text == LINE
    told = done.choices[0].logprobs
    assert told is not None
    assert told.token_logprobs is not None
    ids = torch.tensor(run.tokenizer.encode(LINE))
    with torch.no_grad():
        logits = run.model(ids[None])[0, :-1]
    loss = float(torch.nn.functional.cross_entropy(logits, ids[1:]))
    scores = [x for x in told.token_logprobs if x is not None]
    assert -sum(scores) / len(scores) == pytest.approx(loss, abs=1e-4)
    assert done.usage is not None
    assert done.usage.completion_tokens == 0


def test_tokens_of_a_stop_string_are_not_told(client: OpenAI) -> None:
    done = client.completions.create(
        model="lines", prompt="<scr", max_tokens=40, temperature=0, stop="alert", logprobs=1
    )
    assert done.choices[0].text == "ipt>"
    told = done.choices[0].logprobs
    assert told is not None
    assert told.tokens == list("ipt>")


def test_chat(client: OpenAI) -> None:
    done = client.chat.completions.create(
        model="lines",
        messages=[{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        max_completion_tokens=12,
        logprobs=True,
        top_logprobs=2,
        seed=1,
    )
    choice = done.choices[0]
    assert done.object == "chat.completion"
    assert choice.message.role == "assistant"
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    data = b"".join(bytes(t.bytes or []) for t in choice.logprobs.content)
    assert data.decode(errors="replace") == choice.message.content
    for token in choice.logprobs.content:
        assert len(token.top_logprobs) == 2
        assert sum(math.exp(t.logprob) for t in token.top_logprobs) <= 1.0001
    chunks = list(
        client.chat.completions.create(
            model="lines", messages=[{"role": "user", "content": "hi"}], seed=1,
            max_tokens=12, stream=True, stream_options={"include_usage": True},
        )
    )  # fmt: skip
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(c.choices[0].delta.content or "" for c in chunks[:-1])
    assert text == choice.message.content
    assert chunks[-2].choices[0].finish_reason == choice.finish_reason
    assert chunks[-1].usage == done.usage


@pytest.mark.parametrize(
    ("fields", "status", "param", "code"),
    [
        ({"model": "other"}, 404, "model", "model_not_found"),
        ({"max_tokens": -1}, 400, "max_tokens", "invalid_value"),
        ({"max_tokens": "5"}, 400, "max_tokens", "invalid_value"),
        ({"max_tokens": True}, 400, "max_tokens", "invalid_value"),
        ({"max_tokens": 0}, 400, None, "invalid_value"),
        ({"temperature": -0.1}, 400, "temperature", "invalid_value"),
        ({"top_p": 0}, 400, "top_p", "invalid_value"),
        ({"n": 0}, 400, "n", "invalid_value"),
        ({"n": 128}, 400, "n", None),
        ({"prompt": ["a"] * 73, "echo": True, "logprobs": 0, "max_tokens": 0}, 400, "n", None),
        ({"stop": ""}, 400, "stop", "invalid_value"),
        ({"stop": ["a", 3]}, 400, "stop", "invalid_value"),
        ({"logprobs": 21}, 400, "logprobs", "invalid_value"),
        ({"prompt": []}, 400, "prompt", "invalid_value"),
        ({"prompt": ["a", 3]}, 400, "prompt", "invalid_value"),
        ({"prompt": [70000]}, 400, "prompt", "invalid_value"),
        ({"prompt": "a" * 128}, 400, "prompt", "context_length_exceeded"),
        ({"temprature": 1}, 400, "temprature", "unknown_parameter"),
        ({"logit_bias": {"5": 3}}, 400, "logit_bias", "unsupported_parameter"),
        ({"stream_options": {"x": 1}}, 400, "stream_options.x", "unknown_parameter"),
    ],
)
def test_refused_fields(
    client: OpenAI, fields: dict[str, object], status: int, param: str | None, code: str | None
) -> None:
    body = {"prompt": "a", "model": "lines", "max_tokens": 1} | fields
    with pytest.raises(openai.APIStatusError) as error:
        client.post("/completions", body=body, cast_to=object)
    assert (error.value.status_code, error.value.param, error.value.code) == (status, param, code)
    assert error.value.type == "invalid_request_error"


def test_neutral_fields_are_accepted(client: OpenAI) -> None:
    done = client.completions.create(
        model="lines", prompt="<scr", max_tokens=2, temperature=0, presence_penalty=0,
        frequency_penalty=0.0, logit_bias={}, best_of=1, user="me", suffix=None, seed=None,
    )  # fmt: skip
    assert done.choices[0].text == "ip"


def test_text_ends_with_the_context(client: OpenAI) -> None:
    done = client.completions.create(model="lines", prompt="a" * 100, max_tokens=500, seed=1)
    assert done.usage is not None
    assert done.usage.completion_tokens <= 28


def test_32_clients_get_what_one_gets(served: Running, run: TrainedRun) -> None:
    async def ask(client: AsyncOpenAI, seed: int) -> str:
        given = {"model": "lines", "prompt": LINE[: seed % 7], "max_tokens": 20 + seed % 9}
        if seed % 2:
            parts = [
                chunk.choices[0].text
                async for chunk in await client.completions.create(
                    **given, seed=seed, stream=True  # type: ignore[call-overload]
                )
            ]  # fmt: skip
            return "".join(parts)
        done = await client.completions.create(**given, seed=seed)  # type: ignore[call-overload]
        return str(done.choices[0].text)

    async def together() -> list[str]:
        async with AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none") as client:
            return list(await asyncio.gather(*(ask(client, seed) for seed in range(32))))

    alone = [
        expected(run, LINE[: seed % 7], max_new_tokens=20 + seed % 9, seed=seed)
        for seed in range(32)
    ]
    assert asyncio.run(together()) == alone
    assert served.held == 0


def test_two_checkpoints_have_names_of_their_own(start: Start, trained: Path) -> None:
    older = min((trained / "checkpoints").glob("step_*.pt"))
    it = start(paths=[trained, older])
    names = [m["id"] for m in httpx.get(f"{it.url}/v1/models").json()["data"]]
    assert names == ["lines@120", "lines@60"]
    body = {"prompt": "<scr", "max_tokens": 5, "temperature": 0, "model": "lines@60"}
    assert httpx.post(f"{it.url}/v1/completions", json=body).json()["model"] == "lines@60"


def test_a_full_queue_answers_429(start: Start) -> None:
    it = start(max_batch=1, max_queue=1)
    body = {"prompt": "<", "max_tokens": 100, "stream": True}
    url = f"{it.url}/v1/completions"
    with it.paused(), httpx.stream("POST", url, json=body), httpx.stream("POST", url, json=body):
        refused = httpx.post(url, json=body)
    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "1"
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    it.wait_until_free()
    assert httpx.post(url, json=body).status_code == 200


def test_a_failing_engine_is_an_error_and_the_next_request_succeeds(
    start: Start, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    it = start()
    engine, url = it.models[0].worker.engine, f"{it.url}/v1/completions"

    def fail() -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(engine, "step", fail)
    whole = httpx.post(url, json={"prompt": "a"})
    assert whole.status_code == 500
    assert whole.json()["error"]["type"] == "server_error"
    with OpenAI(base_url=f"{it.url}/v1", api_key="none", max_retries=0) as client:
        events = client.completions.create(model="lines", prompt="a", stream=True)
        with pytest.raises(openai.APIError, match="engine failed"):
            list(events)
    monkeypatch.undo()
    assert httpx.post(url, json={"prompt": "a"}).status_code == 200
    assert "out of memory" in capfd.readouterr().err
    it.wait_until_free()
