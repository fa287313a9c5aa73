"""Import from transformers: the same logits, or an error that names the field."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from export_shapes import FOREIGN, ROWS, configured, foreign, made, overrides, rows, run_of, save
from safetensors.torch import load_file, save_file
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

import lmlab
from lmlab.alignment.templates import CHATML
from lmlab.errors import UserError
from lmlab.export import export_huggingface, import_huggingface
from lmlab.export.architectures import ARCHITECTURES
from lmlab.export.features import missing
from lmlab.export.fields import IRRELEVANT, Fields, read_fields
from lmlab.export.importing import IMPORTED
from lmlab.export.reading import READERS, read_model
from lmlab.loading import TrainedRun
from lmlab.model import build
from lmlab.model.config import ModelConfig
from lmlab.serving.chat import ChatTemplate
from lmlab.serving.protocol import Message
from lmlab.tokenizer import Tokenizer
from tests_support import composed


def imported(folder: Path, output: Path) -> TrainedRun:
    """Import a folder and load the run."""
    import_huggingface(folder, composed(), output=output)
    return lmlab.load(output)


@pytest.mark.parametrize("name", FOREIGN)
def test_a_model_of_transformers_comes_in_and_goes_out(
    name: str, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    theirs = foreign(name)
    folder = save(theirs, tokenizer, tmp_path / "theirs")
    run = imported(folder, tmp_path / "run")
    ids = torch.randint(ROWS, (2, 24))
    with torch.no_grad():
        expected = theirs(ids).logits
        torch.testing.assert_close(run.model(ids), expected, atol=1e-5, rtol=1e-5)
        export_huggingface(run, tmp_path / "back")
        again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "back")
        torch.testing.assert_close(again(ids).logits, expected, atol=1e-5, rtol=1e-5)
    assert type(again) is type(theirs)
    before, after = (load_file(f / "model.safetensors") for f in (folder, tmp_path / "back"))
    assert before.keys() == after.keys()
    for key, value in before.items():
        if name == "gemma2" and "q_proj" in key:  # holds the scale of queries here
            continue
        if "gemma" in name:  # gains are 1 + weight there
            torch.testing.assert_close(after[key], value, atol=1e-6, rtol=1e-6)
        else:
            assert torch.equal(after[key], value), key


@pytest.mark.parametrize("kind", READERS)
def test_a_model_of_ours_goes_out_and_comes_in(
    kind: str, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    architecture = IMPORTED[kind]
    for number, row in enumerate(rows(architecture, pairwise=False)):
        config = configured(*overrides(row | {"scale_embeddings": kind == "gemma2"}))
        assert not missing(architecture, config)
        if config.position.kind in ("sinusoidal", "none"):
            continue
        run = TrainedRun(made(config), tokenizer, composed(), 0, tmp_path)
        object.__setattr__(run, "config", composed().model_copy(update={"model": config}))
        done = export_huggingface(run, tmp_path / f"out_{number}")
        if done.architecture != architecture.name:
            continue
        back = imported(tmp_path / f"out_{number}", tmp_path / f"run_{number}")
        ids = torch.randint(ROWS, (2, 12))
        with torch.no_grad():
            torch.testing.assert_close(back.model(ids), run.model(ids), atol=1e-5, rtol=1e-5)
        theirs = back.model.state_dict()
        for key, value in run.model.state_dict().items():
            if kind == "gemma2":  # gains are 1 + weight there
                torch.testing.assert_close(theirs[key], value, atol=1e-6, rtol=1e-6)
            else:
                assert torch.equal(theirs[key], value), key


@pytest.mark.parametrize("kind", READERS)
def test_every_field_is_mapped_required_or_irrelevant(kind: str) -> None:
    values = CONFIG_MAPPING[kind]().to_dict()
    fields = Fields(values, values, Path("config.json"))
    read_model(kind, fields)
    assert set(values) - fields.used - IRRELEVANT == set()


THETA = {"rope_type": "default", "rope_theta": 1e4}
PUBLISHED: dict[str, dict[str, Any]] = {
    "GPT-2": {
        "activation_function": "gelu_new",
        "architectures": ["GPT2LMHeadModel"],
        "attn_pdrop": 0.1,
        "bos_token_id": 50256,
        "embd_pdrop": 0.1,
        "eos_token_id": 50256,
        "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-05,
        "model_type": "gpt2",
        "n_ctx": 1024,
        "n_embd": 768,
        "n_head": 12,
        "n_layer": 12,
        "n_positions": 1024,
        "resid_pdrop": 0.1,
        "summary_activation": None,
        "summary_first_dropout": 0.1,
        "summary_proj_to_labels": True,
        "summary_type": "cls_index",
        "summary_use_proj": True,
        "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
        "vocab_size": 50257,
    },
    "Llama 3.2 1B": {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 128000,
        "eos_token_id": 128001,
        "head_dim": 64,
        "hidden_act": "silu",
        "hidden_size": 2048,
        "initializer_range": 0.02,
        "intermediate_size": 8192,
        "max_position_embeddings": 131072,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": 32,
        "num_hidden_layers": 16,
        "num_key_value_heads": 8,
        "pretraining_tp": 1,
        "rms_norm_eps": 1e-05,
        "rope_scaling": {
            "factor": 32.0,
            "high_freq_factor": 4.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192,
            "rope_type": "llama3",
        },
        "rope_theta": 500000.0,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.45.0.dev0",
        "use_cache": True,
        "vocab_size": 128256,
    },
    "Qwen2.5 0.5B": {
        "architectures": ["Qwen2ForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": 151643,
        "eos_token_id": 151643,
        "hidden_act": "silu",
        "hidden_size": 896,
        "initializer_range": 0.02,
        "intermediate_size": 4864,
        "max_position_embeddings": 32768,
        "max_window_layers": 24,
        "model_type": "qwen2",
        "num_attention_heads": 14,
        "num_hidden_layers": 24,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "sliding_window": 32768,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.40.1",
        "use_cache": True,
        "use_mrope": False,
        "use_sliding_window": False,
        "vocab_size": 151936,
    },
}
"""What config.json of published models holds."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_configuration_of_published_models_is_read(name: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED[name]))
    known = {kind: architecture.name for kind, architecture in IMPORTED.items()}
    read = read_model(*read_fields(tmp_path, known))
    config = ModelConfig.model_validate(read.model)
    model = build(config, config.vocab_size or 0, device="meta")
    parameters = {"GPT-2": 124_439_808, "Llama 3.2 1B": 1_235_814_400, "Qwen2.5 0.5B": 494_032_768}
    assert sum(p.numel() for p in model.parameters()) == parameters[name]


WRONG: dict[str, tuple[str, dict[str, Any]]] = {
    "yarn": ("llama", {"rope_parameters": THETA | {"rope_type": "yarn", "factor": 2.0}}),
    "dynamic": ("llama", {"rope_parameters": THETA | {"rope_type": "dynamic", "factor": 2.0}}),
    "partial": ("llama", {"rope_parameters": THETA | {"partial_rotary_factor": 0.5}}),
    "mlp_bias": ("llama", {"mlp_bias": True}),
    "hidden_act": ("llama", {"hidden_act": "mish"}),
    "quantization_config": ("llama", {"quantization_config": {"quant_method": "gptq"}}),
    "something_new": ("llama", {"something_new": 3}),
    "mlp_only_layers": ("qwen3_moe", {"mlp_only_layers": [0]}),
    "decoder_sparse_step": ("qwen3_moe", {"decoder_sparse_step": 2}),
    "scale_attn_by_inverse_layer_idx": ("gpt2", {"scale_attn_by_inverse_layer_idx": True}),
    "scale_attn_weights": ("gpt2", {"scale_attn_weights": False}),
    "use_bidirectional_attention": ("gemma2", {"use_bidirectional_attention": True}),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_field_without_a_place_is_named(case: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    name, changed = WRONG[case]
    folder = save(foreign(name), tokenizer, tmp_path / "theirs")
    change(folder, **changed)
    (key,) = changed
    with pytest.raises(UserError, match=rf"config\.json: {key}=.* cannot be imported"):
        imported(folder, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def change(folder: Path, **fields: Any) -> None:
    """Change fields of config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_weights_in_every_container(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = foreign("llama")
    whole = save(model, tokenizer, tmp_path / "whole")
    sharded = save(model, tokenizer, tmp_path / "sharded", max_shard_size="20KB")
    assert len(list(sharded.glob("*.safetensors"))) > 2
    weights = load_file(whole / "model.safetensors")
    pickled = save(model, tokenizer, tmp_path / "pickled")
    (pickled / "model.safetensors").unlink()
    torch.save(weights, pickled / "pytorch_model.bin")
    expected = imported(whole, tmp_path / "run").model.state_dict()
    for folder in (sharded, pickled):
        found = imported(folder, tmp_path / f"run_{folder.name}").model.state_dict()
        assert all(torch.equal(found[key], value) for key, value in expected.items())


def test_bfloat16_weights_and_tables_of_earlier_versions(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    folder = save(foreign("gpt2").bfloat16(), tokenizer, tmp_path / "theirs")
    path = folder / "model.safetensors"
    stored = {k.removeprefix("transformer."): v for k, v in load_file(path).items()}
    stored["h.0.attn.bias"] = torch.ones(1, 1, 24, 24)
    save_file(stored, path, metadata={"format": "pt"})
    run = imported(folder, tmp_path / "run")
    assert next(run.model.parameters()).dtype == torch.float32
    assert torch.equal(run.model.token_embedding.weight, stored["wte.weight"].float())


def damaged(folder: Path, case: str) -> str:
    """Damage a folder, and return what the error must say."""
    path = folder / "model.safetensors"
    weights = load_file(path)
    name = "model.layers.1.mlp.up_proj.weight"
    if case == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
        return r"model\.safetensors is damaged"
    if case == "none":
        path.unlink()
        return "has no weights"
    if case == "missing":
        del weights[name]
    elif case == "extra":
        weights["model.layers.9.extra"] = torch.ones(1)
    elif case == "shape":
        weights[name] = weights[name][:-1].clone()
    elif case == "integers":
        weights[name] = weights[name].int()
    save_file(weights, path, metadata={"format": "pt"})
    return {
        "missing": rf"lacks tensor {name}",
        "extra": r"has the unknown tensor model\.layers\.9\.extra",
        "shape": rf"{name} has the shape \(39, 32\), not \(40, 32\)",
        "integers": rf"{name} is torch.int32",
    }[case]


@pytest.mark.parametrize("case", ["truncated", "none", "missing", "extra", "shape", "integers"])
def test_damaged_weights(case: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    folder = save(foreign("llama"), tokenizer, tmp_path / "theirs")
    message = damaged(folder, case)
    with pytest.raises(UserError, match=message):
        imported(folder, tmp_path / "run")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["theirs"]


def test_pickled_code_is_not_run(tokenizer: Tokenizer, tmp_path: Path) -> None:
    folder = save(foreign("llama"), tokenizer, tmp_path / "theirs")
    (folder / "model.safetensors").unlink()
    torch.save({"model": Path}, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pytorch_model\.bin holds more than tensors"):
        imported(folder, tmp_path / "run")


def test_an_index_that_names_a_file_elsewhere(tokenizer: Tokenizer, tmp_path: Path) -> None:
    folder = save(foreign("llama"), tokenizer, tmp_path / "theirs")
    (folder / "model.safetensors").rename(tmp_path / "other.safetensors")
    index = {"weight_map": {"a": "../other.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"names \.\./other\.safetensors"):
        imported(folder, tmp_path / "run")


def test_folders_that_are_no_model(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a folder"):
        imported(tmp_path / "nothing", tmp_path / "run")
    with pytest.raises(UserError, match=r"has no config\.json"):
        imported(tmp_path, tmp_path / "run")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        imported(tmp_path, tmp_path / "run")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match=r'"bert" cannot be imported; known are llama, mistral'):
        imported(tmp_path, tmp_path / "run")
    folder = save(foreign("llama"), tokenizer, tmp_path / "theirs")
    change(folder, architectures=["LlamaForSequenceClassification"])
    with pytest.raises(UserError, match="LlamaForSequenceClassification"):
        imported(folder, tmp_path / "run")
    change(folder, architectures=["LlamaForCausalLM"])
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine").write_text("")
    with pytest.raises(UserError, match="run exists"):
        imported(folder, tmp_path / "run")


def test_tokenizers(tokenizer: Tokenizer, tmp_path: Path) -> None:
    folder = save(foreign("llama"), tokenizer, tmp_path / "theirs")
    path = folder / "tokenizer.json"
    whole = json.loads(path.read_text())
    path.unlink()
    with pytest.raises(UserError, match="has no tokenizer; only byte-level BPE"):
        imported(folder, tmp_path / "run")
    (folder / "tokenizer.model").write_bytes(b"")
    with pytest.raises(UserError, match="is SentencePiece"):
        imported(folder, tmp_path / "run")
    unigram = whole | {"model": {"type": "Unigram", "vocab": [["a", 0.0]]}}
    path.write_text(json.dumps(unigram))
    with pytest.raises(UserError, match="not a BPE tokenizer"):
        imported(folder, tmp_path / "run")
    renamed = json.dumps(whole).replace("<|endoftext|>", "<|end_of_text|>")
    path.write_text(renamed)
    done = import_huggingface(folder, composed(), output=tmp_path / "run")
    assert done.notes == (
        "<|end_of_text|> is called <|endoftext|> here, which ends and begins documents",
    )
    assert lmlab.load(tmp_path / "run").tokenizer.special_tokens == {"<|endoftext|>": 299}


BEGUN = (
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{{ eos_token }}\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.mark.parametrize(
    ("source", "end", "special"),
    [
        (CHATML, "<|im_end|>", {"eos_token": "<|im_end|>"}),
        (BEGUN, "<|im_end|>", {"eos_token": "<|im_end|>", "bos_token": "<|begin|>"}),
        (BEGUN, "<|endoftext|>", {"eos_token": "<|im_end|>"}),
        (BEGUN, "<|endoftext|>", {"eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>"}),
    ],
    ids=["renamed", "renamed, with a beginning", "of its own", "as here"],
)
def test_a_chat_template_writes_the_same_tokens(
    source: str, end: str, special: dict[str, str], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """`end` is the token that is called <|endoftext|> here."""
    names = ["<|begin|>", "<|im_start|>", "<|im_end|>"]
    if end != "<|endoftext|>":
        tokenizer = tokenizer.with_special_token_renamed("<|endoftext|>", "<|other|>")
    folder = save(foreign("llama"), tokenizer.extended(names, None), tmp_path / "theirs")
    ids = tokenizer.extended(names, None).special_tokens
    change(folder, eos_token_id=ids[end], bos_token_id=None, pad_token_id=None)
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": source} | special
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    talk = [("user", "the dog"), ("assistant", "the cat"), ("user", "hello")]
    theirs = transformers.AutoTokenizer.from_pretrained(folder).apply_chat_template(
        [{"role": role, "content": text} for role, text in talk],
        add_generation_prompt=True,
        return_dict=False,
    )
    own = imported(folder, tmp_path / "run").tokenizer
    assert own.chat_template is not None
    template = ChatTemplate(own.chat_template, list(own.special_tokens))
    prompt = template.prompt([Message(role=role, content=text) for role, text in talk])
    assert own.encode(prompt) == theirs
    assert own.encode(template.stop[0]) == [ids[special.get("eos_token", end)]]


def test_the_files_of_gpt2_are_a_tokenizer(tokenizer: Tokenizer, tmp_path: Path) -> None:
    folder = save(foreign("gpt2"), tokenizer, tmp_path / "theirs")
    (folder / "tokenizer.json").unlink()
    tokenizer.save(folder)
    (folder / "lmlab_tokenizer.json").unlink()
    special = {"tokenizer_class": "GPT2Tokenizer", "unk_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(special))
    run = imported(folder, tmp_path / "run")
    assert run.tokenizer.encode("the dog<|endoftext|>") == tokenizer.encode("the dog<|endoftext|>")


def test_the_run_is_one_like_any_other(tokenizer: Tokenizer, tmp_path: Path) -> None:
    folder = save(foreign("qwen3"), tokenizer, tmp_path / "Qwen 3")
    done = import_huggingface(folder, composed(), output=tmp_path / "run")
    names = {"config.yaml", "environment.json", "lineage.json", "tokenizer", "checkpoints"}
    assert {path.name for path in done.directory.iterdir()} == names
    checkpoints = {path.name for path in (done.directory / "checkpoints").iterdir()}
    assert checkpoints == {"step_00000000.pt", "latest"}
    lineage = json.loads((done.directory / "lineage.json").read_text())
    assert lineage["parent"] == str(folder)
    assert lineage["architecture"] == "Qwen3ForCausalLM"
    run = lmlab.load(done.directory)
    assert run.config.name == "Qwen_3"
    assert run.step == 0
    child = composed(f"init_from={done.directory}", "lr=1e-4")
    assert child.model == run.config.model


def test_an_export_with_a_constant_comes_back_as_a_parameter(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    given = ("model/position=sinusoidal", "model/ffn=mlp", "model.norm=layernorm")
    run = run_of(tokenizer, *given)
    export_huggingface(run, tmp_path / "out")
    back = imported(tmp_path / "out", tmp_path / "run")
    assert back.config.model.position.kind == "learned"
    ids = torch.randint(ROWS, (2, 12))
    with torch.no_grad():
        torch.testing.assert_close(back.model(ids), run.model(ids), atol=1e-5, rtol=1e-5)


def test_the_table_of_importable_types() -> None:
    assert set(IMPORTED) == set(READERS)
    assert all(architecture in ARCHITECTURES for architecture in IMPORTED.values())
