"""Back ends, masks, linear attention and caches."""

import shutil
from collections.abc import Callable
from contextlib import nullcontext
from subprocess import CompletedProcess

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lmlab.errors import ConfigError
from lmlab.model import build, products
from lmlab.model.attention import choice
from lmlab.model.attention.backends import BACKENDS
from lmlab.model.attention.choice import check_backends, choose
from lmlab.model.attention.linear import chunked, recurrent
from lmlab.model.attention.masks import AttentionPattern, Causal, Mask, SlidingWindow, Strided
from lmlab.model.attention.softmax import SoftmaxAttention
from lmlab.model.context import Context
from tests_support import composed

MASKS: list[Mask] = [Causal(), SlidingWindow(3), SlidingWindow(1), Strided(4, 2), Strided(1, 1)]


def test_masks_by_hand() -> None:
    def rows(mask: Mask) -> list[str]:
        seen = AttentionPattern(mask).dense(6, torch.device("cpu"))
        return ["".join(".x"[int(x)] for x in row) for row in seen.tolist()]

    assert rows(Causal()) == ["x.....", "xx....", "xxx...", "xxxx..", "xxxxx.", "xxxxxx"]
    assert rows(SlidingWindow(2)) == ["x.....", "xx....", ".xx...", "..xx..", "...xx.", "....xx"]
    assert rows(Strided(3, 2)) == ["x.....", "xx....", "xxx...", "x.xx..", "x..xx.", "x..xxx"]


@pytest.mark.parametrize("mask", MASKS, ids=str)
@pytest.mark.parametrize("length", range(9))
def test_a_cache_keeps_what_a_later_token_sees(mask: Mask, length: int) -> None:
    keys, later = torch.arange(length), torch.arange(length, 30)
    needed = mask.allows(later[:, None], keys).any(dim=0)
    kept = mask.keeps(keys, torch.tensor(length - 1))
    assert torch.equal(needed, kept)
    assert mask.kept(length) == kept.sum()


@pytest.mark.parametrize("mask", MASKS, ids=str)
@pytest.mark.parametrize("length", range(1, 30))
def test_keys_attended_to_together_have_different_slots(mask: Mask, length: int) -> None:
    keys = torch.arange(length)
    attended = mask.slot(keys[mask.allows(torch.tensor(length - 1), keys)])
    assert len(attended.unique()) == len(attended)
    assert mask.slot(keys).max() < mask.slots(length)


@pytest.mark.parametrize("mask", MASKS, ids=str)
@pytest.mark.parametrize("cap", [None, 0.7])
@pytest.mark.parametrize("padded", [False, True], ids=["", "padded"])
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("backend", ["sdpa", "flex", "by_rows"])
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_backends_equal_the_definition(
    mask: Mask, cap: float | None, padded: bool, kv_heads: int, backend: str
) -> None:
    if backend == "sdpa" and cap is not None:
        pytest.skip("refused by the configuration")
    torch.manual_seed(0)
    time = 9
    shapes = ((2, 4), (2, kv_heads), (2, kv_heads))
    inputs = [torch.randn(*shape, time, 8, requires_grad=backend == "sdpa") for shape in shapes]
    others = [x.detach().clone().requires_grad_() for x in inputs]
    # The second sequence has two tokens of padding at its left: those rows see nothing.
    positions = torch.stack([torch.arange(time), torch.arange(time) - 2]) if padded else None
    pattern = AttentionPattern(mask, positions, positions)
    ours = BACKENDS["eager"](*others, pattern, cap, 0.0)
    theirs = BACKENDS[backend](*inputs, pattern, cap, 0.0)
    assert ours.isfinite().all()
    if padded:
        assert ours[1, :, :2].abs().max() == 0
    torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=1e-5)
    if backend == "sdpa":  # FlexAttention has no gradient on CPU
        ours.square().sum().backward()
        theirs.square().sum().backward()
        for x, other in zip(inputs, others, strict=True):
            torch.testing.assert_close(x.grad, other.grad, atol=1e-5, rtol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("mask", MASKS, ids=str)
@pytest.mark.parametrize("cap", [None, 0.7])
def test_flex_equals_the_definition_on_cuda(mask: Mask, cap: float | None) -> None:
    inputs = [torch.randn(2, 4, 256, 32, device="cuda", requires_grad=True) for _ in range(3)]
    others = [x.detach().clone().requires_grad_() for x in inputs]
    ours = BACKENDS["eager"](*others, AttentionPattern(mask), cap, 0.0)
    theirs = BACKENDS["flex"](*inputs, AttentionPattern(mask), cap, 0.0)
    torch.testing.assert_close(theirs, ours, atol=1e-2, rtol=1e-2)
    ours.square().sum().backward()
    theirs.square().sum().backward()
    for x, other in zip(inputs, others, strict=True):
        torch.testing.assert_close(x.grad, other.grad, atol=5e-2, rtol=5e-2)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("name", ["window", "linear"])
def test_a_whole_model_compiles_to_the_same(name: str) -> None:
    torch.manual_seed(0)
    flex = ["model.attention.backend=flex"] if name == "window" else []
    model = build(composed(*SMALL, *ATTENTIONS[name], *flex).model, 13).eval()
    model.requires_grad_(False)  # FlexAttention has no gradient on CPU
    ids = torch.randint(13, (2, 128))
    torch.testing.assert_close(torch.compile(model)(ids), model(ids), atol=1e-5, rtol=1e-5)


FLEX, HYBRID = "model.attention.backend=flex", "model/attention=hybrid"
LOCAL = "model.attention.members.local.backend"


@pytest.mark.parametrize(
    ("overrides", "device", "message"),
    [
        ([FLEX], "cpu", "'model.attention.backend': 'flex' trains on CUDA only, the device is"),
        ([FLEX], "mps", "the device is 'mps'; use auto or eager"),
        (
            [FLEX, "model.head_dim=14"],
            "cuda:1",
            "'flex' needs heads of width 16 or more, got 14; use",
        ),
        ([HYBRID, f"{LOCAL}=flex"], "cpu", f"'{LOCAL}': 'flex' trains on CUDA only"),
        ([FLEX, "model.head_dim=16"], "cuda", None),
        (["model.attention.backend=blocked"], "cuda", "'blocked' runs on the CPU only, the device"),
        (
            ["model.attention.backend=blocked", "trainer.precision=fp16"],
            "cpu",
            "'blocked' computes float32 and bfloat16, trainer.precision is 'fp16'",
        ),
        ([HYBRID, f"{LOCAL}=eager"], "cpu", None),
        (["model/attention=linear"], "cpu", None),
    ],
)
def test_a_backend_that_cannot_train_is_refused(
    overrides: list[str], device: str, message: str | None
) -> None:
    config = composed(*overrides)
    precision = config.trainer.precision
    refused = nullcontext() if message is None else pytest.raises(ConfigError, match=message)
    with refused:
        check_backends(config.model, torch.device(device), precision)


def test_a_run_refuses_its_backend_before_it_prepares_data(
    train: Callable[..., CompletedProcess[str]],
) -> None:
    done = train("data=text", "data.paths=[nowhere.txt]", "trainer.device=cpu", FLEX)
    assert done.returncode == 1
    assert done.stderr.startswith("config error at 'model.attention.backend'"), done.stderr
    assert len(done.stderr.splitlines()) == 1


BF16, FP32 = torch.bfloat16, torch.float32


@pytest.mark.parametrize(
    ("mask", "time", "dtype", "expected"),
    [
        (Causal(), 1024, BF16, "blocked"),
        (Causal(), 1025, BF16, "sdpa"),
        (Causal(), 4096, FP32, "blocked"),
        (Causal(), 64, torch.float16, "sdpa"),
        (SlidingWindow(512), 4096, BF16, "blocked"),
        (SlidingWindow(513), 4096, BF16, "sdpa"),
    ],
)
def test_the_native_core_where_it_is_faster(
    mask: Mask, time: int, dtype: torch.dtype, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "SLOW_BFLOAT16", False)
    monkeypatch.setattr(choice, "INSTRUCTIONS", ("avx2", "generic"))
    pattern = AttentionPattern(mask)
    assert choose("auto", "cpu", 32, pattern, time, None, 0.0, dtype) == expected
    monkeypatch.setattr(products, "SLOW_BFLOAT16", True)
    slow = "sdpa" if dtype == torch.float16 else "blocked"
    assert choose("auto", "cpu", 32, pattern, time, None, 0.0, dtype) == slow
    for without in (("generic",), ()):
        monkeypatch.setattr(choice, "INSTRUCTIONS", without)
        assert choose("auto", "cpu", 32, pattern, time, None, 0.0, dtype) == "sdpa"
    assert choose("blocked", "cpu", 32, pattern, time, None, 0.0, dtype) == "sdpa"


def test_auto_takes_what_can_do_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "INSTRUCTIONS", ("avx2", "generic"))
    full, window = AttentionPattern(Causal()), AttentionPattern(SlidingWindow(3))
    strided = AttentionPattern(Strided(4, 2))
    assert choose("auto", "cpu", 32, full, 9, None, 0.0, BF16) == "blocked"
    assert choose("auto", "cpu", 32, full, 256, None, 0.0, BF16) == "blocked"
    assert choose("auto", "cpu", 32, window, 256, None, 0.0, BF16) == "blocked"
    assert choose("auto", "cpu", 32, window, 256, 5.0, 0.0, BF16) == "eager"
    assert choose("auto", "cpu", 32, full, 256, None, 0.1, BF16) == "sdpa"
    assert choose("auto", "cpu", 32, strided, 256, None, 0.0, BF16) == "sdpa"
    positions = torch.arange(256)
    given = AttentionPattern(Causal(), positions, positions)
    assert choose("auto", "cpu", 32, given, 256, None, 0.0, BF16) == "sdpa"
    assert choose("blocked", "cpu", 32, given, 256, None, 0.0, BF16) == "sdpa"
    assert choose("auto", "cpu", 32, window, 9, None, 0.1, BF16) == "sdpa"
    assert choose("auto", "cpu", 32, window, 9, 5.0, 0.0, BF16) == "eager"
    assert choose("auto", "cuda", 32, full, 9, None, 0.0, BF16) == "sdpa"
    assert choose("auto", "cuda", 32, window, 9, None, 0.0, BF16) == "flex"
    assert choose("auto", "cuda", 32, full, 9, 5.0, 0.0, BF16) == "flex"
    assert choose("auto", "cuda", 32, full, 9, 5.0, 0.1, BF16) == "eager"
    assert choose("eager", "cuda", 32, full, 9, None, 0.0, BF16) == "eager"
    # torch has no flex kernel for heads that narrow.
    assert choose("auto", "cuda", 16, window, 9, None, 0.0, BF16) == "flex"
    assert choose("auto", "cuda", 15, window, 9, None, 0.0, BF16) == "sdpa"
    assert choose("auto", "cuda", 8, full, 9, 5.0, 0.0, BF16) == "eager"
    assert choose("auto", "cuda", 8, full, 9, None, 0.0, BF16) == "sdpa"


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
def test_attention_drops_in_training_only(backend: str) -> None:
    config = composed("model.attention.dropout=0.5", f"model.attention.backend={backend}").model
    attention = next(m for m in build(config, 11).modules() if isinstance(m, SoftmaxAttention))
    x = torch.randn(1, 6, config.d_model)
    assert not torch.equal(attention(x, Context()), attention(x, Context()))
    attention.eval()
    assert torch.equal(attention(x, Context()), attention(x, Context()))


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 3), st.integers(1, 2), st.integers(1, 20), st.integers(1, 7), st.booleans())
def test_chunked_linear_attention_equals_the_recurrence(
    heads: int, group: int, time: int, chunk: int, started: bool
) -> None:
    torch.manual_seed(time)
    q = torch.randn(2, heads, group, time, 4)
    k, v = torch.randn(2, heads, time, 4), torch.randn(2, heads, time, 5)
    state = torch.randn(2, heads, 4, 5) if started else torch.zeros(2, heads, 4, 5)
    expected, last = recurrent(q, k, v, state)
    out, end = chunked(q, k, v, state, chunk)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(end, last, atol=1e-5, rtol=1e-5)


def test_linear_attention_is_masked_q_k_v() -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(1, 1, 1, 6, 4), torch.randn(1, 1, 6, 4), torch.randn(1, 1, 6, 4)
    out, state = chunked(q, k, v, torch.zeros(1, 1, 4, 4), 4)
    torch.testing.assert_close(out[0, 0], (q[0, 0] @ k[0].mT).tril() @ v[0])
    torch.testing.assert_close(state[0], k[0].mT @ v[0])


ATTENTIONS = {
    "full": [],
    "gqa": ["model.attention.num_kv_heads=1"],
    "window": ["model/attention=sliding_window", "model.attention.window=5"],
    "strided": [
        "model/attention=strided",
        "model.attention.window=3",
        "model.attention.stride=16",
    ],
    "linear": ["model/attention=linear", "model.attention.chunk_size=8"],
    "hybrid": ["model/attention=hybrid", "model.attention.members.local.window=4"],
}
SMALL = [
    "model.d_model=16",
    "model.num_heads=2",
    "model.num_layers=2",
    "model.d_ff=16",
    "model.context_length=300",
]


@pytest.mark.parametrize("name", ATTENTIONS)
def test_long_decoding_equals_the_full_pass_in_bounded_memory(name: str) -> None:
    torch.manual_seed(0)
    model = build(composed(*SMALL, *ATTENTIONS[name]).model, 13).eval()
    ids = torch.randint(13, (2, 300))
    cache = model.new_cache()
    with torch.no_grad():
        expected = model(ids)
        parts = [model(ids[:, :50], cache=cache)]
        parts += [model(ids[:, t : t + 1], cache=cache) for t in range(50, 300)]
    torch.testing.assert_close(torch.cat(parts, dim=1), expected, atol=2e-5, rtol=1e-5)
    held = cache.bytes / 4 / 2  # float32, two sequences
    needed = model.cache_elements(300)
    if name == "linear":
        assert held <= needed * 1.1  # the state, and the sum of the keys
    else:
        token = 2 * 2 * 2 * 8  # layers, keys and values, heads, d_k
        blocks = 2 * 64 * token / 2  # a layer's slots are rounded up to whole blocks
        assert needed <= held <= needed + 2 * token + blocks
    if name in ("window", "linear"):
        assert needed < model.cache_elements(5) * 2


@pytest.mark.parametrize("name", ATTENTIONS)
def test_sequences_of_different_lengths_decode_as_if_alone(name: str) -> None:
    torch.manual_seed(0)
    overrides = ["model/position=learned"] if name == "linear" else []
    model = build(composed(*SMALL, *ATTENTIONS[name], *overrides).model, 13).eval()
    short, long = torch.randint(13, (1, 4)), torch.randint(13, (1, 7))
    both = torch.cat([torch.cat([torch.zeros(1, 3, dtype=torch.long), short], dim=1), long])
    new = torch.randint(13, (2, 60))
    offset = torch.tensor([[3], [0]])
    cache = model.new_cache()
    with torch.no_grad():
        parts = [model(both, positions=torch.arange(7) - offset, cache=cache)[:, -1:]]
        for t in range(60):
            positions = torch.full((2, 1), 7 + t) - offset
            parts.append(model(new[:, t : t + 1], positions=positions, cache=cache))
        alone: list[Tensor] = [
            model(torch.cat([prompt[0], new[i]])[None])[0, len(prompt[0]) - 1 :]
            for i, prompt in enumerate((short, long))
        ]
    got = torch.cat(parts, dim=1)
    for i in range(2):
        torch.testing.assert_close(got[i], alone[i], atol=2e-5, rtol=1e-5)


def test_a_sequence_beyond_the_context_is_refused() -> None:
    model = build(composed(*SMALL, "model.context_length=8").model, 13)
    with pytest.raises(ValueError, match="9 tokens exceed the context length of 8"):
        model(torch.zeros(1, 9, dtype=torch.long))
    cache = model.new_cache()
    model(torch.zeros(1, 8, dtype=torch.long), cache=cache)
    with pytest.raises(ValueError, match="9 tokens exceed"):
        model(torch.zeros(1, 1, dtype=torch.long), cache=cache)
