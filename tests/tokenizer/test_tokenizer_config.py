"""Presets load and build; importing the configuration imports nothing heavy."""

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from pydantic import TypeAdapter, ValidationError

import lmlab.tokenizer
from lmlab.errors import DataError
from lmlab.tokenizer import Tokenizer, build
from lmlab.tokenizer.config import BPEConfig, ByteConfig, GPT2Config, TokenizerConfig

PRESETS = Path(__file__).parents[2] / "conf" / "tokenizer"
adapter: TypeAdapter[TokenizerConfig] = TypeAdapter(TokenizerConfig)

BPE = {"kind": "bpe", "vocab_size": 300, "pattern": "gpt2", "special_tokens": ["<|endoftext|>"]}


def read(path: Path) -> TokenizerConfig:
    return adapter.validate_python(OmegaConf.to_container(OmegaConf.load(path), resolve=True))


def no_documents() -> Iterable[str]:
    raise AssertionError("there is nothing to learn from the documents")


def test_presets() -> None:
    presets = {path.stem: read(path) for path in PRESETS.glob("*.yaml")}
    sizes = {"bpe_4k": 4096, "bpe_10k": 10_000, "bpe_32k": 32_000, "bpe_50k": 50_257}
    sizes["bpe_200k"] = 200_000
    assert set(presets) == {*sizes, "byte", "gpt2"}
    for name, size in sizes.items():
        config = presets[name]
        assert isinstance(config, BPEConfig)
        assert config.vocab_size == size
    assert all("<|endoftext|>" in config.special_tokens for config in presets.values())


def test_build_byte() -> None:
    tokenizer = build(ByteConfig(kind="byte", special_tokens=("<|endoftext|>",)), no_documents)
    assert tokenizer.encode("é<|endoftext|>") == [0xC3, 0xA9, 256]


def test_build_bpe_trains_on_the_documents(corpus: str) -> None:
    config = adapter.validate_python(BPE)
    tokenizer = build(config, lambda: [corpus[:5000].encode(), corpus[5000:].encode()])
    assert tokenizer.vocab_size == 300
    assert tokenizer.special_tokens == {"<|endoftext|>": 299}
    assert tokenizer.decode(tokenizer.encode(corpus)) == corpus


def test_build_gpt2_from_files(small: Tokenizer, tmp_path: Path) -> None:
    small.save(tmp_path)
    config = GPT2Config(
        kind="gpt2",
        vocab_file=tmp_path / "vocab.json",
        merges_file=tmp_path / "merges.txt",
        vocab_url=None,
        merges_url=None,
        vocab_sha256=None,
        merges_sha256=None,
        pattern="gpt2",
        special_tokens=("<|endoftext|>", "<|new|>"),
    )
    tokenizer = build(config, no_documents)
    assert tokenizer.encode("some words") == small.encode("some words")
    assert tokenizer.special_tokens == {"<|endoftext|>": 499, "<|new|>": 500}
    missing = config.model_copy(update={"merges_file": tmp_path / "no.txt"})
    with pytest.raises(DataError, match=r"no.txt: no such file, and no URL"):
        build(missing, no_documents)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "bpee"},
        {"vocab_size": 255},
        {"vocab_size": 2**21},
        {"vocab_size": 1.5},
        {"pattern": ""},
        {"special_tokens": [""]},
        {"special_tokens": "<|a|>"},
        {"special": []},
    ],
)
def test_bad_values_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        adapter.validate_python(BPE | change)


@pytest.mark.parametrize("module", ["lmlab.tokenizer.config", "lmlab.cli"])
def test_light_modules_import_nothing_heavy(module: str) -> None:
    heavy = {"torch", "numpy", "regex", "requests", "tqdm", "lmlab.tokenizer._core"}
    code = f"import sys, {module}; print(sorted({heavy!r} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr


def test_package_exports() -> None:
    for name in lmlab.tokenizer.__all__:
        assert getattr(lmlab.tokenizer, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = lmlab.tokenizer.nothing
