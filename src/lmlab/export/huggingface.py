"""Export to a folder that transformers loads."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lmlab.errors import UserError
from lmlab.export.architectures import ARCHITECTURES, Architecture
from lmlab.export.extras import package
from lmlab.export.features import choose
from lmlab.export.publishing import check_target, published
from lmlab.export.rules import Rule, Rules, exported_shapes
from lmlab.export.tokenizer_files import reply_end, special_ids, write_json, write_tokenizer
from lmlab.export.verify import Agreement, Logits, check_ids, check_logits
from lmlab.files import share
from lmlab.loading import TrainedRun
from lmlab.model import Transformer, build
from lmlab.tokenizer import Tokenizer

Dtype = Literal["fp32", "bf16", "fp16"]
DTYPES: dict[Dtype, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
CONFIG = "config.json"
SHARD_BYTES = 4 * 10**9
"""Most bytes of one safetensors file."""


@dataclass(frozen=True)
class Exported:
    """What was written."""

    architecture: str
    path: Path
    dtype: str
    bytes: int
    agreement: Agreement
    """Of the written weights, loaded by transformers in float32, with the same weights here."""


def export_huggingface(
    run: TrainedRun, target: Path, dtype: Dtype = "fp32", *, force: bool = False
) -> Exported:
    """Write a run as a folder of transformers: configuration, weights and tokenizer.

    The folder is published after transformers has loaded it with the same logits and the same
    tokens. Raises ConfigError naming the first key of the configuration that no architecture can
    express, and UserError when the target exists without `force`, or the check fails.
    """
    architecture = choose(ARCHITECTURES, run.config.model, "transformers")
    check_target(target, force, CONFIG)
    package("transformers"), package("safetensors")
    with published(target, force, CONFIG) as folder:
        agreement = write_folder(run.model, run.tokenizer, architecture, folder, dtype)
        size = sum(path.stat().st_size for path in folder.iterdir())
    return Exported(architecture.name, target, dtype, size, agreement)


def write_folder(
    model: Transformer,
    tokenizer: Tokenizer,
    architecture: Architecture,
    folder: Path,
    dtype: Dtype,
) -> Agreement:
    """Write all files into a folder, and check them."""
    config = model.config
    rules = architecture.layout.rules(config, model.vocab_size)
    special = special_ids(tokenizer)
    values = architecture.config(config, model.vocab_size) | special
    name = str(DTYPES[dtype]).removeprefix("torch.")
    write_json(folder / CONFIG, values | {"dtype": name, "torch_dtype": name})
    unused = sorted(set(range(model.vocab_size)) - set(tokenizer.vocab))
    suppressed = {"suppress_tokens": unused} if unused else {}
    reply = reply_end(tokenizer)
    ends = [i for i in (special["eos_token_id"], reply) if i is not None]
    stops = {} if reply is None else {"eos_token_id": ends}
    write_json(folder / "generation_config.json", special | stops | suppressed)
    write_tokenizer(tokenizer, folder, model.context_length)
    write_weights(model, rules, folder, DTYPES[dtype])
    check_ids(tokenizer, folder)
    stored = model if dtype == "fp32" else rounded(model, rules, DTYPES[dtype])
    logits = Logits.of(stored, tokenizer.vocab_size)
    del stored
    return check_logits(logits, folder)


def write_weights(model: Transformer, rules: Rules, folder: Path, dtype: torch.dtype) -> None:
    """Write safetensors files of at most SHARD_BYTES, and their index when there are several.

    Raises UserError for a weight that is not finite in `dtype`, and when the disk is full.
    """
    safetensors = package("safetensors.torch")
    weights = model.state_dict()
    shapes = exported_shapes(rules, {name: x.shape for name, x in weights.items()})
    sizes = {name: shape.numel() * dtype.itemsize for name, shape in shapes.items()}
    files: list[list[str]] = [[]]
    for name, size in sizes.items():
        if files[-1] and sum(sizes[each] for each in files[-1]) + size > SHARD_BYTES:
            files.append([])
        files[-1].append(name)
    names = ["model.safetensors"]
    if len(files) > 1:
        names = [f"model-{i:05d}-of-{len(files):05d}.safetensors" for i in range(1, len(files) + 1)]
        where = {name: file for file, held in zip(names, files, strict=True) for name in held}
        total = {"total_size": sum(sizes.values())}
        write_json(
            folder / "model.safetensors.index.json", {"metadata": total, "weight_map": where}
        )
    tensors = _exported(weights, rules, dtype)
    for file, held in zip(names, files, strict=True):
        part = dict(next(tensors) for _ in held)
        try:
            safetensors.save_file(part, folder / file, metadata={"format": "pt"})
            share(folder / file)
        except safetensors_error() as error:
            raise UserError(f"cannot write {folder / file}: {error}") from error


def safetensors_error() -> type[Exception]:
    """Return the exception of safetensors."""
    error: type[Exception] = package("safetensors").SafetensorError
    return error


def _exported(
    weights: dict[str, Tensor], rules: Rules, dtype: torch.dtype
) -> Iterator[tuple[str, Tensor]]:
    for rule in rules:
        for name, x in rule.export(lambda key: weights[key].detach().cpu()).items():
            converted = x.to(dtype).contiguous()
            if not converted.isfinite().all():
                raise UserError(
                    f"{name} is not finite in {dtype}: its largest weight is "
                    f"{float(x.abs().max()):.3g}; use --dtype bf16 or fp32"
                )
            yield name, converted.clone() if converted.data_ptr() == x.data_ptr() else converted


def rounded(model: Transformer, rules: Rules, dtype: torch.dtype) -> Transformer:
    """Return a model in float32 with the weights that a file of `dtype` holds."""
    weights = model.state_dict()
    # a head that the file holds apart from the embedding is rounded apart from it
    apart = any(isinstance(rule, Rule) and not rule.keep for rule in rules)
    tied = model.config.tie_embeddings and not apart
    config = model.config.model_copy(update={"tie_embeddings": tied})
    result = build(config, model.vocab_size)
    restored: dict[str, Any] = {}
    for rule in rules:
        held = {
            name: x.to(dtype).float() for name, x in rule.export(lambda key: weights[key]).items()
        }
        restored |= rule.restore(held.__getitem__)
    if tied:
        restored["lm_head.weight"] = restored["token_embedding.weight"]
    elif apart:
        restored["lm_head.weight"] = weights["lm_head.weight"].to(dtype).float()
    result.load_state_dict(restored)
    return result.eval()
