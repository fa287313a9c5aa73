"""Loss, perplexity and bits per byte against a plain loop, transformers' recipe and the loader."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_runs import MakeRun

from lmlab.errors import DataError, UserError
from lmlab.evaluation import Scorer, evaluate_text
from lmlab.loading import TrainedRun
from lmlab.tokenizer import Tokenizer

DOCUMENTS = [
    "the cat sees the moon. " * 9,
    "a",
    "old ship sails under the blue sea " * 3,
    "Größe ☃",
]


def plain_nats(run: TrainedRun, text: str) -> float:
    """One token at a time, each with the longest context there is."""
    ids = [run.tokenizer.special_tokens["<|endoftext|>"], *run.tokenizer.encode(text)]
    total = 0.0
    for i in range(1, len(ids)):
        window = ids[max(0, i - run.model.context_length) : i]
        logits = run.model(torch.tensor([window]))[0, -1].double()
        total -= float(torch.log_softmax(logits, 0)[ids[i]])
    return total


def strided_nats(run: TrainedRun, text: str, stride: int) -> float:
    """The recipe of transformers' documentation: labels before the new ones are left out."""
    ids = torch.tensor(
        [[run.tokenizer.special_tokens["<|endoftext|>"], *run.tokenizer.encode(text)]]
    )
    size, limit = ids.shape[1], run.model.context_length
    total, previous = 0.0, 1
    for begin in range(0, size, stride):
        end = min(begin + limit + 1, size)
        new = end - previous
        logits = run.model(ids[:, begin : end - 1])[0].double()
        labels = ids[0, begin + 1 : end].clone()
        labels[:-new] = -100
        total += float(torch.nn.functional.cross_entropy(logits, labels, reduction="sum"))
        previous = end
        if end == size:
            break
    return total


@torch.no_grad()
@pytest.mark.parametrize(
    "choice",
    [
        "model/attention=sliding_window",
        "model/attention=linear",
        "model/position=learned",
        "model/ffn=moe",
        "model.vocab_size=400",
    ],
)
def test_stride_1_is_one_token_at_a_time(make_run: MakeRun, bpe: Tokenizer, choice: str) -> None:
    run = make_run("one", bpe, choice)
    if choice == "model.vocab_size=400":  # rows beyond the tokenizer's are left out
        cut = run.model.lm_head.weight
        cut.data[bpe.vocab_size :] = 100.0
        forward = run.model.forward
        run.model.forward = lambda ids: forward(ids)[..., : bpe.vocab_size]  # type: ignore
    result = evaluate_text(Scorer(run), DOCUMENTS, stride=1)
    expected = [plain_nats(run, text) for text in DOCUMENTS]
    np.testing.assert_allclose(result.nats, expected, rtol=2e-5)
    assert result.tokens.tolist() == [len(bpe.encode(text)) for text in DOCUMENTS]
    assert result.bytes.tolist() == [len(text.encode()) for text in DOCUMENTS]


@torch.no_grad()
@pytest.mark.parametrize("stride", [4, 16])
def test_larger_strides_are_the_recipe_of_transformers(run: TrainedRun, stride: int) -> None:
    # Lengths at which the last window of the recipe is full, as ours always is.
    texts = ["x" * 32, "abcdefgh" * 10 + "!" * 16 * 3, "moon" * 16]
    assert all((len(text) - 32) % stride == 0 for text in texts)
    result = evaluate_text(Scorer(run), texts, stride=stride)
    np.testing.assert_allclose(
        result.nats, [strided_nats(run, text, stride) for text in texts], rtol=2e-5
    )


def test_a_corpus_of_short_texts_is_the_sum_of_what_the_loader_says(
    bpe_run: TrainedRun, bpe: Tokenizer
) -> None:
    run = bpe_run
    texts = ["the cat", "a dog sees", "sun"]
    result = evaluate_text(Scorer(run), texts)
    nats = sum(run.loss(text) * len(bpe.encode(text)) for text in texts)
    assert result.loss.value == pytest.approx(nats / result.tokens.sum(), rel=1e-5)
    bits = sum(run.bits_per_byte(text) * len(text) for text in texts)
    assert result.bits_per_byte.value == pytest.approx(bits / result.bytes.sum(), rel=1e-5)
    assert result.perplexity == pytest.approx(math.exp(nats / result.tokens.sum()), rel=1e-4)
    assert result.byte_perplexity == pytest.approx(2 ** (bits / result.bytes.sum()), rel=1e-4)


@settings(max_examples=25)
@given(texts=st.lists(st.text(max_size=90), min_size=1, max_size=5), batch=st.integers(1, 4))
def test_batches_change_nothing_and_every_byte_is_counted(
    run: TrainedRun, texts: list[str], batch: int
) -> None:
    texts = [text for text in texts if text]
    advanced: list[int] = []
    if not texts:
        with pytest.raises(DataError, match="empty corpus"):
            evaluate_text(Scorer(run), ["", *texts])
        return
    result = evaluate_text(
        Scorer(run, batch_size=batch), ["", *texts], stride=7, advance=advanced.append
    )
    alone = [evaluate_text(Scorer(run), [text], stride=7).nats[0] for text in texts]
    np.testing.assert_allclose(result.nats, alone, rtol=1e-5)
    sizes = [len(text.encode()) for text in texts]
    assert result.bytes.tolist() == sizes
    assert sum(advanced) == sum(sizes)


def test_bytes_are_those_of_the_document_with_a_tokenizer_that_normalizes(
    make_run: MakeRun, tmp_path: Path
) -> None:
    plain = make_run()
    file = tmp_path / "tokenizer.json"
    plain.tokenizer.to_huggingface(file)
    content = json.loads(file.read_text()) | {"normalizer": {"type": "NFC"}}
    file.write_text(json.dumps(content))
    normalizing = make_run("nfc", Tokenizer.from_huggingface(file))
    texts = ["e\u0301te\u0301", "plain"]  # 7 bytes; 5 in the form NFC
    results = [evaluate_text(Scorer(run), texts) for run in (normalizing, plain)]
    assert [result.bytes.tolist() for result in results] == [[7, 5]] * 2
    assert [result.tokens.tolist() for result in results] == [[5, 5], [7, 5]]
    results[0].minus(results[1])


def test_a_special_token_in_a_text_is_text(run: TrainedRun) -> None:
    result = evaluate_text(Scorer(run), ["a<|endoftext|>b"])
    assert result.tokens[0] == result.bytes[0] == 15


def test_more_requests_than_a_pool_holds_keep_their_order(run: TrainedRun) -> None:
    texts = [f"{i} " * (1 + i * 37 % 20) for i in range(300)]
    result = evaluate_text(Scorer(run, batch_size=1), texts)
    expected = [run.loss(text) * len(text) for text in texts if len(text) < 32]
    found = [n for n, text in zip(result.nats, texts, strict=True) if len(text) < 32]
    assert len(found) > 50
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@torch.no_grad()
def test_a_context_length_is_the_most_that_is_seen(run: TrainedRun) -> None:
    text = "the ship sails over the sea, the cat sees it"
    limited = evaluate_text(Scorer(run), [text], context_length=1).nats[0]
    end = run.tokenizer.special_tokens["<|endoftext|>"]
    ids = [end, *text.encode()]
    logits = run.model(torch.tensor(ids[:-1])[:, None])[:, -1].double()
    pairs = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="sum")
    assert limited == pytest.approx(float(pairs), rel=1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [("bf16", 0.03), ("int8", 0.06)])
def test_other_dtypes_are_near_and_differ(run: TrainedRun, dtype: str, tolerance: float) -> None:
    exact = evaluate_text(Scorer(run), DOCUMENTS).bits_per_byte.value
    rounded = evaluate_text(Scorer(run, dtype=dtype), DOCUMENTS).bits_per_byte.value  # type: ignore
    assert rounded != exact
    assert rounded == pytest.approx(exact, rel=tolerance)


def test_a_tokenizer_without_an_end_of_document_is_refused(make_run: MakeRun) -> None:
    run = make_run("one", Tokenizer({byte: bytes([byte]) for byte in range(256)}, []))
    with pytest.raises(UserError, match=r"one: the tokenizer has no <\|endoftext\|>"):
        evaluate_text(Scorer(run), ["text"])


def test_a_batch_size_of_nothing_is_refused(run: TrainedRun) -> None:
    with pytest.raises(UserError, match="batch size must be at least 1, got 0"):
        Scorer(run, batch_size=0)
