"""Export to GGUF: read back by gguf, and the same logits and tokens as llama.cpp."""

import importlib.util
from pathlib import Path

import gguf
import pytest
from export_shapes import configured, made, overrides, rows, run_of, trained_tokenizer

import lmlab.export.gguf_verify as gguf_verify
from lmlab.alignment.templates import CHATML, PLAIN
from lmlab.errors import ConfigError, UserError
from lmlab.export import export_gguf, save_gguf
from lmlab.export.features import missing
from lmlab.export.gguf_architectures import GGUF_ARCHITECTURES, GGUFArchitecture
from lmlab.export.gguf_file import Dtype, choose_gguf, gguf_rules, write_gguf
from lmlab.export.gguf_tokenizer import gguf_tokenizer
from lmlab.export.gguf_verify import check_file, check_llama_cpp
from lmlab.tokenizer import Tokenizer
from lmlab.tokenizer.bpe import byte_tokenizer

needs_llama_cpp = pytest.mark.skipif(
    importlib.util.find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed"
)
NAMES = [architecture.name for architecture in GGUF_ARCHITECTURES]


def check_rows(
    architecture: GGUFArchitecture, pairwise: bool, tokenizer: Tokenizer, folder: Path
) -> None:
    """Export every configuration that an architecture has, and compare it with llama.cpp."""
    for number, row in enumerate(rows(architecture, pairwise)):
        config = configured(*overrides(row))
        assert not missing(architecture, config)
        model, path = made(config), folder / f"{number}.gguf"
        rules = gguf_rules(model, architecture)
        keys = gguf_tokenizer(tokenizer, model.vocab_size)
        write_gguf(model, architecture, rules, keys, path, "fp32")
        check_file(model, rules, path, "fp32")
        agreement = check_llama_cpp(model, tokenizer, path, "fp32")
        assert agreement is None or agreement.scale > 0.1


@pytest.mark.parametrize("architecture", GGUF_ARCHITECTURES, ids=NAMES)
def test_every_value_of_every_feature_that_an_architecture_has(
    architecture: GGUFArchitecture, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    check_rows(architecture, False, tokenizer, tmp_path)


@pytest.mark.slow
@needs_llama_cpp
@pytest.mark.parametrize("architecture", GGUF_ARCHITECTURES, ids=NAMES)
def test_every_pair_of_values_that_an_architecture_has(
    architecture: GGUFArchitecture, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    check_rows(architecture, True, tokenizer, tmp_path)


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16", "q8_0"])
def test_every_type(dtype: Dtype, tokenizer: Tokenizer, tmp_path: Path) -> None:
    run = run_of(tokenizer, "model.d_model=64", "model.d_ff=48")
    done = export_gguf(run, tmp_path / "model.gguf", dtype)
    reader = gguf.GGUFReader(done.path)
    kinds = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    assert kinds["blk.0.attn_q.weight"] == {"fp32": "F32"}.get(dtype, dtype.upper()).replace(
        "FP16", "F16"
    )
    assert kinds["blk.0.attn_norm.weight"] == "F32"
    notes = ("2 tensors whose rows are no multiple of 32 are fp16, not q8_0",)
    assert done.notes == (notes if dtype == "q8_0" else ())
    assert done.bytes == done.path.stat().st_size
    # rows of 310 tokens, of which the tokenizer has 300
    tokens = reader.get_field("tokenizer.ggml.tokens")
    assert len(tokens.data) == 310


@needs_llama_cpp
def test_llama_cpp_agrees_to_the_tolerance(tokenizer: Tokenizer, tmp_path: Path) -> None:
    done = export_gguf(run_of(tokenizer), tmp_path / "model.gguf")
    assert done.agreement is not None
    assert done.agreement.relative < 1e-5


def test_a_file_without_llama_cpp_is_read_back(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf_verify.importlib.util, "find_spec", lambda name: None)
    done = export_gguf(run_of(tokenizer), tmp_path / "model.gguf")
    assert done.agreement is None
    save_gguf(run_of(tokenizer).model, tokenizer, tmp_path / "same.gguf")
    assert (tmp_path / "same.gguf").read_bytes() == done.path.read_bytes()


@pytest.mark.parametrize(
    ("given", "key"),
    [
        (["model/attention=sliding_window"], "model.attention.kind"),
        (["model/attention=strided"], "model.attention.kind"),
        (["model.ffn.activation=gelu"], "model.ffn.activation"),
        (["model/ffn=moe", "model.ffn.router_softmax=before"], "model.ffn.router_softmax"),
        (["model.norm_placement=post"], "model.norm_placement"),
    ],
)
def test_the_error_names_the_key(given: list[str], key: str) -> None:
    with pytest.raises(ConfigError, match=rf"'{key}'.*llama\.cpp architecture has"):
        choose_gguf(configured(*given))


def test_the_27b_model_is_refused() -> None:
    row = next(rows(next(a for a in GGUF_ARCHITECTURES if a.name == "gemma2"), False))
    config = configured(*overrides(row), "model.num_layers=46")
    with pytest.raises(ConfigError, match=r"model\.num_layers"):
        choose_gguf(config)


@pytest.mark.parametrize("pattern", ["gpt2", "cl100k", "o200k"])
def test_patterns(pattern: str, tmp_path: Path) -> None:
    tokenizer = trained_tokenizer(tmp_path, pattern)
    done = export_gguf(run_of(tokenizer), tmp_path / "model.gguf")
    assert bool(done.notes) == (pattern == "o200k")


def test_conversations(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Without a template of its own, llama.cpp would take ChatML."""
    for template, end in ((CHATML, 301), (PLAIN, None)):
        chat = tokenizer.extended(["<|im_start|>", "<|im_end|>"], template)
        export_gguf(run_of(chat), tmp_path / "model.gguf", force=True)
        fields = gguf.GGUFReader(tmp_path / "model.gguf").fields
        assert fields["tokenizer.chat_template"].contents() == template
        found = fields.get("tokenizer.ggml.eot_token_id")
        assert (found and found.contents()) == end


def test_tokenizers_that_llama_cpp_lacks(tmp_path: Path) -> None:
    own = trained_tokenizer(tmp_path, r"\s?\S+|\s+")
    with pytest.raises(UserError, match="does not know how this tokenizer cuts words"):
        export_gguf(run_of(own), tmp_path / "model.gguf")
    with pytest.raises(UserError, match="reads no tokenizer without merges"):
        export_gguf(run_of(byte_tokenizer(["<|endoftext|>"])), tmp_path / "model.gguf")
    assert not (tmp_path / "model.gguf").exists()


def test_targets(tokenizer: Tokenizer, tmp_path: Path) -> None:
    run = run_of(tokenizer)
    export_gguf(run, tmp_path / "new" / "model.gguf")
    with pytest.raises(UserError, match="exists"):
        export_gguf(run, tmp_path / "new" / "model.gguf")
    with pytest.raises(UserError, match="is a folder"):
        export_gguf(run, tmp_path / "new", force=True)
    export_gguf(run, tmp_path / "new" / "model.gguf", "q8_0", force=True)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["model.gguf"]


def test_weights_too_large_for_fp16_are_named(tokenizer: Tokenizer, tmp_path: Path) -> None:
    run = run_of(tokenizer)
    run.model.blocks[1].ffn.branch.w1.weight.data[0, 0] = 1e5
    with pytest.raises(UserError, match=r"blk\.1\.ffn_gate\.weight is not finite"):
        export_gguf(run, tmp_path / "model.gguf", "fp16")
    assert list(tmp_path.iterdir()) == []
