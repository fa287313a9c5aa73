"""Export to transformers: the same logits, or an error that names the key."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from choices import name, pairs, singles
from choices import overrides as choice_overrides
from export_shapes import ROWS, configured, made, overrides, rows, run_of
from safetensors.torch import load_file

import lmlab.export.huggingface as huggingface
from lmlab.alignment.templates import CHATML, PLAIN
from lmlab.errors import ConfigError, UserError
from lmlab.export import export_huggingface
from lmlab.export.architectures import ARCHITECTURES, Architecture
from lmlab.export.features import choose, features, missing
from lmlab.export.huggingface import DTYPES, Dtype, write_folder
from lmlab.export.layouts import Layout
from lmlab.generation.generate import generate
from lmlab.generation.options import Options
from lmlab.tokenizer import Tokenizer
from lmlab.tokenizer.bpe import byte_tokenizer

IDS = [f"{i}_{a.model_type}" for i, a in enumerate(ARCHITECTURES)]


def check_rows(architecture: Architecture, pairwise: bool, folder: Path) -> None:
    """Export every configuration that an architecture has; the export compares the logits."""
    tokenizer = byte_tokenizer(["<|endoftext|>"])
    for number, row in enumerate(rows(architecture, pairwise)):
        config = configured(*overrides(row))
        assert not missing(architecture, config)
        (folder / str(number)).mkdir()
        agreement = write_folder(
            made(config), tokenizer, architecture, folder / str(number), "fp32"
        )
        assert agreement.relative < 1e-5
        assert agreement.scale > 0.1  # something to compare


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=IDS)
def test_every_value_of_every_feature_that_an_architecture_has(
    architecture: Architecture, tmp_path: Path
) -> None:
    check_rows(architecture, False, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=IDS)
def test_every_pair_of_values_that_an_architecture_has(
    architecture: Architecture, tmp_path: Path
) -> None:
    check_rows(architecture, True, tmp_path)


COMBINATIONS = [*singles(), *list(pairs())[::4]]


@pytest.mark.parametrize("combination", COMBINATIONS, ids=name)
def test_every_configuration_is_exported_or_named(
    combination: dict[str, str], tmp_path: Path
) -> None:
    config = configured(*choice_overrides(combination), f"model.vocab_size={ROWS}")
    able = [a for a in ARCHITECTURES if not missing(a, config)]
    if able:
        assert choose(ARCHITECTURES, config, "transformers") == able[0]
        tokenizer = byte_tokenizer(["<|endoftext|>"])
        write_folder(made(config), tokenizer, able[0], tmp_path, "fp32")
        return
    with pytest.raises(ConfigError) as error:
        choose(ARCHITECTURES, config, "transformers")
    key = str(error.value).split("'")[1].removeprefix("model.")
    found = [feature for feature in features(config) if feature.key == key]
    assert any(str(feature) in str(error.value) for feature in found)


@pytest.mark.parametrize(
    ("given", "key", "words"),
    [
        (["model/attention=linear"], "model.attention.kind", "no transformers architecture has"),
        (
            ["model/attention=hybrid", "model/attention@model.attention.members.local=strided"],
            "model.attention.members.local.kind",
            "model.attention.members.local.kind=strided",
        ),
        (["model.norm_placement=none"], "model.norm_placement", "model.norm_placement=none"),
        (
            ["model.block=parallel", "model.norm=rmsnorm"],
            "model.block",
            "the nearest, LlamaForCausalLM, does not have model.block=parallel",
        ),
        (
            ["model/attention=hybrid", "model.attention.members.local.num_kv_heads=2"],
            "model.attention.members.global.num_kv_heads",
            "num_kv_heads=null",
        ),
        (
            [
                "model/attention=hybrid",
                "model/attention@model.attention.members.global=sliding_window",
                "model.attention.members.global.window=5",
            ],
            "model.attention.pattern",
            "local",
        ),
    ],
)
def test_the_error_names_the_key(given: list[str], key: str, words: str) -> None:
    with pytest.raises(ConfigError, match=key) as error:
        choose(ARCHITECTURES, configured(*given), "transformers")
    assert words in str(error.value)


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_transformers_generates_the_same_text(
    dtype: Dtype, tokenizer: Tokenizer, target: Path
) -> None:
    run = run_of(tokenizer, "model.attention.num_kv_heads=2", "model.context_length=64")
    done = export_huggingface(run, target, dtype)
    assert done.architecture == "LlamaForCausalLM"
    model = transformers.AutoModelForCausalLM.from_pretrained(target)
    theirs = transformers.AutoTokenizer.from_pretrained(target)
    assert model.dtype == DTYPES[dtype]
    ids = theirs("Once upon a time", return_tensors="pt").input_ids
    assert ids[0].tolist() == tokenizer.encode("Once upon a time")
    assert theirs.eos_token == theirs.bos_token == "<|endoftext|>"
    assert theirs.model_max_length == 64
    assert model.generation_config.eos_token_id == tokenizer.special_tokens["<|endoftext|>"]
    if dtype == "fp32":
        out = model.generate(ids, max_new_tokens=30, do_sample=False)[0, ids.shape[1] :]
        options = Options(max_new_tokens=30, temperature=0.0)
        own = generate(run.model, tokenizer, ["Once upon a time"], options)[0].tokens
        assert [i for i in out.tolist() if i != theirs.eos_token_id] == own


@pytest.mark.parametrize(
    ("template", "ends"),
    [
        (CHATML, [299, 301]),
        (PLAIN, 299),
        ("{{ raise_exception('no') }}", 299),
        ("{% unknown %}", 299),
    ],
    ids=["chatml", "plain", "refusing", "with an unknown tag"],
)
def test_generate_ends_at_the_end_of_a_reply(
    template: str, ends: int | list[int], tokenizer: Tokenizer, target: Path
) -> None:
    chat = tokenizer.extended(["<|im_start|>", "<|im_end|>"], template)
    export_huggingface(run_of(chat), target)
    generation = transformers.GenerationConfig.from_pretrained(target)
    assert generation.eos_token_id == ends
    assert generation.pad_token_id == 299


@pytest.mark.parametrize("kind", ["linear", "llama3"])
@pytest.mark.parametrize(
    "other", [(), ("model.norm_placement=double", "model.attention.qk_norm=true")]
)
def test_a_scaling_is_written_for_transformers_4_too(
    kind: str, other: tuple[str, ...], tokenizer: Tokenizer, target: Path
) -> None:
    """Version 4 reads `rope_theta` and `rope_scaling` alone: without them it would not scale."""
    given = [f"model/position/scaling={kind}", *other]
    if kind == "llama3":
        given.append("model.position.scaling.original_context_length=8")
    export_huggingface(run_of(tokenizer, *given), target)
    values = json.loads((target / "config.json").read_text())
    parameters = values["rope_parameters"]
    angles = parameters.get("full_attention", parameters)
    assert values["rope_scaling"] | {"rope_theta": values["rope_theta"]} == angles
    assert values["rope_scaling"]["rope_type"] == kind


def test_large_models_are_written_in_several_files(
    tokenizer: Tokenizer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(tokenizer)
    monkeypatch.setattr(huggingface, "SHARD_BYTES", 50_000)
    export_huggingface(run, target)
    files = sorted(target.glob("model-*.safetensors"))
    index = json.loads((target / "model.safetensors.index.json").read_text())
    assert len(files) > 2
    assert all(path.stat().st_size < 60_000 for path in files)
    held = {name: path.name for path in files for name in load_file(path)}
    assert held == index["weight_map"]


def test_a_tied_head_is_written_once_and_a_folded_scale_unties_it(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    tied = run_of(tokenizer, "model.tie_embeddings=true")
    export_huggingface(tied, tmp_path / "tied")
    assert "lm_head.weight" not in load_file(tmp_path / "tied" / "model.safetensors")
    folded = run_of(tokenizer, "model.tie_embeddings=true", "model.scale_embeddings=true")
    export_huggingface(folded, tmp_path / "folded")
    weights = load_file(tmp_path / "folded" / "model.safetensors")
    scaled = weights["lm_head.weight"] * 32**0.5
    torch.testing.assert_close(weights["model.embed_tokens.weight"], scaled)


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize(
    "given",
    [("model.scale_embeddings=true",), ("model.norm_placement=double",)],
    ids=["folded into Llama's", "taken out of Gemma 2's"],
)
def test_a_folded_scale_is_rounded_apart_from_the_head(
    given: tuple[str, ...], dtype: Dtype, tokenizer: Tokenizer, target: Path
) -> None:
    """The root of 48 is no power of 2, so that both tensors round in their own way."""
    run = run_of(tokenizer, "model.tie_embeddings=true", "model.d_model=48", *given)
    assert export_huggingface(run, target, dtype).agreement.relative < 1e-5


def test_an_existing_target_is_replaced_with_force_only(tokenizer: Tokenizer, target: Path) -> None:
    run = run_of(tokenizer)
    export_huggingface(run, target)
    with pytest.raises(UserError, match=r"out exists; .*--force"):
        export_huggingface(run, target)
    (target / "left").write_text("over")
    export_huggingface(run, target, force=True)
    assert not (target / "left").exists()
    other = target.parent / "documents"
    other.mkdir()
    (other / "letter.txt").write_text("mine")
    with pytest.raises(UserError, match=r"has no config\.json, so --force"):
        export_huggingface(run, other, force=True)
    assert (other / "letter.txt").read_text() == "mine"
    assert sorted(path.name for path in target.parent.iterdir()) == ["documents", "out"]


@pytest.mark.parametrize("force", [False, True])
def test_nothing_is_published_when_the_check_fails(
    force: bool, tokenizer: Tokenizer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(tokenizer)
    if force:
        export_huggingface(run, target)
    before = sorted(target.parent.rglob("*"))
    wrong = Layout.steps
    monkeypatch.setattr(
        Layout, "steps", lambda self, config, slot: wrong(self, config, slot)[:0]
    )  # heads whose halves stay adjacent pairs
    with pytest.raises(UserError, match="logits of transformers differ by"):
        export_huggingface(run, target, force=force)
    assert sorted(target.parent.rglob("*")) == before


def test_weights_too_large_for_fp16_are_named(tokenizer: Tokenizer, target: Path) -> None:
    run = run_of(tokenizer)
    run.model.blocks[1].ffn.branch.w1.weight.data[0, 0] = 1e5
    with pytest.raises(UserError, match=r"model\.layers\.1\.mlp\.gate_proj\.weight is not finite"):
        export_huggingface(run, target, "fp16")
    assert not target.exists()


def test_a_full_disk_is_one_line(
    tokenizer: Tokenizer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors import SafetensorError

    def full(*args: object, **options: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(UserError, match="No space left on device"):
        export_huggingface(run_of(tokenizer), target)
    assert list(target.parent.iterdir()) == []


def test_a_tokenizer_that_transformers_reads_otherwise_is_refused(
    tokenizer: Tokenizer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = byte_tokenizer(["<|endoftext|>"])
    own = huggingface.write_tokenizer
    monkeypatch.setattr(huggingface, "write_tokenizer", lambda tokenizer, *rest: own(other, *rest))
    with pytest.raises(UserError, match="transformers reads 'upon"):
        export_huggingface(run_of(tokenizer), target)
    assert not target.exists()
