"""Import of a folder of transformers as a run."""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lmlab.config import RunConfig
from lmlab.config import load as load_config
from lmlab.errors import ConfigError, UserError
from lmlab.export.architectures import ARCHITECTURES, Architecture
from lmlab.export.extras import package
from lmlab.export.fields import read_fields
from lmlab.export.publishing import check_target, published
from lmlab.export.reading import READERS, Read, read_model
from lmlab.export.rules import Rules, exported_shapes
from lmlab.export.source import Source
from lmlab.export.tokenizer_source import read_tokenizer
from lmlab.export.verify import Agreement, Logits, check_ids, check_logits
from lmlab.layout import CHECKPOINTS, CONFIG, TOKENIZER
from lmlab.model import Transformer, build
from lmlab.model.config import ModelConfig
from lmlab.runs.environment import environment
from lmlab.runs.run import ENVIRONMENT, LINEAGE, Run
from lmlab.tokenizer import Tokenizer
from lmlab.training.checkpoint import Checkpoints
from lmlab.training.state import TrainState

IMPORTED = {a.model_type: a for a in ARCHITECTURES if a.model_type in READERS}
"""Type of model -> architecture; of Llama the one with biases."""


@dataclass(frozen=True)
class Imported:
    """What was made."""

    architecture: str
    source: Path
    directory: Path
    agreement: Agreement
    """With transformers, in float32."""
    notes: tuple[str, ...]
    """What is different here."""


def import_huggingface(
    folder: Path, base: RunConfig, *, output: Path | None = None, name: str | None = None
) -> Imported:
    """Make a run at step 0 of a folder that transformers can load, weights and tokenizer.

    `base` gives everything but the model and the tokenizer, such as `lmlab.compose()`. The run
    (default: runs/NAME/TIMESTAMP) is published after transformers has computed the same logits.
    Raises UserError for a folder without a model, an unknown type of model, a field of config.json
    that has no place here, weights that do not fit, a tokenizer that is no byte-level BPE, and an
    output that exists.
    """
    package("transformers"), package("safetensors")
    name = name or re.sub(r"[^\w.-]+", "_", folder.resolve().name) or "imported"
    output = output or Path("runs") / name / time.strftime("%Y-%m-%d_%H-%M-%S")
    check_target(output, force=None, mark=CONFIG)
    known = {kind: architecture.name for kind, architecture in IMPORTED.items()}
    kind, fields = read_fields(folder, known)
    read = read_model(kind, fields)
    config = _config(base, read, name, output)
    source = Source(folder)
    tokenizer, notes = read_tokenizer(folder, fields.values)
    if tokenizer.vocab_size > (rows := read.model["vocab_size"]):
        raise UserError(
            f"{folder}: its tokenizer has {tokenizer.vocab_size:,} tokens, more than the {rows:,} "
            "rows of its embedding"
        )
    architecture = IMPORTED[kind]
    layout = replace(architecture.layout, query_factor=read.query_factor)
    if architecture.model_type == "gpt2":
        source.add_prefix("transformer.")
    rules = layout.rules(config.model, rows)
    model = _model(config.model, rows, rules, source, layout.tied(config.model))
    with published(output, force=None, mark=CONFIG) as directory:
        _write(directory, config, model, tokenizer, folder, architecture)
        logits = Logits.of(model, rows)
        del model  # so that memory holds one model at a time
        agreement = check_logits(logits, folder)
        check_ids(tokenizer, folder, renamed=notes.renamed)
    return Imported(architecture.name, folder, output, agreement, notes.texts)


def _config(base: RunConfig, read: Read, name: str, output: Path) -> RunConfig:
    values = base.model_dump(mode="json")
    values |= {"name": name, "resume": None, "init_from": None, "init_optimizer": False}
    values |= {"model": read.model}
    values["tokenizer"] = {"kind": "saved", "path": str((output / TOKENIZER).resolve())}
    try:
        return load_config(values)
    except ConfigError as error:
        raise UserError(f"lmlab has no such model: {error}") from error


def _model(
    config: ModelConfig, vocab_size: int, rules: Rules, source: Source, tied: bool
) -> Transformer:
    """Return the model with the weights of the source, read one after the other.

    Raises UserError for weights that are missing, left over or of another shape.
    """
    model = build(config, vocab_size, device="meta")
    shapes = {name: x.shape for name, x in model.state_dict().items()}
    expected = exported_shapes(rules, shapes)
    _check_tensors(source, expected, tied)
    weights: dict[str, Tensor] = {}
    for rule in rules:
        for name, x in rule.restore(source.get).items():
            weights[name] = x.contiguous()
    if config.tie_embeddings:
        weights["lm_head.weight"] = weights["token_embedding.weight"]
    model.load_state_dict(weights, assign=True)
    if config.tie_embeddings:
        model.lm_head.weight = model.token_embedding.weight
    if not list(model.position.parameters()):  # its tables are no weights
        model.position.to_empty(device="cpu")
        model.position.reset_parameters()
    return model.eval()


def _check_tensors(source: Source, expected: Mapping[str, torch.Size], tied: bool) -> None:
    names = source.names()
    if tied and "lm_head.weight" in names:  # a copy of the embedding that transformers leaves out
        names.discard("lm_head.weight")
    missing, extra = sorted(set(expected) - names), sorted(names - set(expected))
    for kind, found in (("lacks", missing), ("has the unknown", extra)):
        if found:
            more = f" and {len(found) - 1} more" if len(found) > 1 else ""
            raise UserError(f"{source.folder} {kind} tensor {found[0]}{more}")
    for name, shape in expected.items():
        if source.shape(name) != tuple(shape):
            raise UserError(
                f"{source.folder}: {name} has the shape {source.shape(name)}, not {tuple(shape)} "
                "as config.json says"
            )


def _write(
    directory: Path,
    config: RunConfig,
    model: Transformer,
    tokenizer: Tokenizer,
    folder: Path,
    architecture: Architecture,
) -> None:
    tokenizer.save(directory / TOKENIZER)
    (directory / CONFIG).write_text(config.to_yaml(), encoding="utf-8")
    run = Run(directory)
    run.write_json(ENVIRONMENT, environment("cpu"))
    lineage: dict[str, Any] = {"parent": str(folder.resolve()), "format": "huggingface"}
    run.write_json(LINEAGE, lineage | {"architecture": architecture.name})
    checkpoints = Checkpoints(directory / CHECKPOINTS, keep=1)
    state = {
        "step": 0,
        "config_fingerprint": config.fingerprint(),
        "model": model.state_dict(),
        "optimizer": None,
        "scaler": None,
        "source": [],
        "progress": vars(TrainState()).copy(),
        "files": {},
    }
    checkpoints.write(0, state)
