"""Export to a GGUF file, which llama.cpp and what is built on it load."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lmlab.errors import ConfigError, UserError
from lmlab.export.extras import package
from lmlab.export.features import choose
from lmlab.export.gguf_architectures import GGUF_ARCHITECTURES, GGUFArchitecture
from lmlab.export.gguf_tokenizer import GGUFTokenizer, gguf_tokenizer
from lmlab.export.gguf_verify import check_file, check_llama_cpp
from lmlab.export.publishing import check_target, published
from lmlab.export.rules import Constant, Rules
from lmlab.export.verify import Agreement
from lmlab.loading import TrainedRun
from lmlab.model import Transformer
from lmlab.model.config import Llama3ScalingConfig, ModelConfig, RoPEConfig
from lmlab.model.position import frequencies, scaled
from lmlab.tokenizer import Tokenizer

Dtype = Literal["fp32", "fp16", "bf16", "q8_0"]
KINDS: dict[Dtype, tuple[str, str]] = {
    "fp32": ("F32", "ALL_F32"),
    "fp16": ("F16", "MOSTLY_F16"),
    "bf16": ("BF16", "MOSTLY_BF16"),
    "q8_0": ("Q8_0", "MOSTLY_Q8_0"),
}
"""Names of gguf for the type of matrices, and of the file."""
ALWAYS_FP32 = ("ffn_gate_inp", "position_embd")
"""Matrices that llama.cpp reads as float32."""
GEMMA_27B = 46
"""Layers by which llama.cpp recognises Gemma 2 27B, whose attention has another scale."""


@dataclass(frozen=True)
class ExportedGGUF:
    """What was written."""

    architecture: str
    path: Path
    dtype: str
    bytes: int
    agreement: Agreement | None
    """With llama.cpp; None: llama-cpp-python is not installed."""
    notes: tuple[str, ...]
    """Where llama.cpp differs, and what is stored in another type."""


def export_gguf(
    run: TrainedRun, target: Path, dtype: Dtype = "fp32", *, force: bool = False
) -> ExportedGGUF:
    """Write a run as one GGUF file: configuration, weights and tokenizer.

    The file is published after its tensors were read back, and, if llama-cpp-python is installed,
    after llama.cpp has computed the same logits and tokens. Raises ConfigError naming the first key
    that no architecture of llama.cpp can express, and UserError when llama.cpp does not know the
    tokenizer's pattern, the target exists without `force`, or a check fails.
    """
    architecture = choose_gguf(run.config.model)
    tokenizer = gguf_tokenizer(run.tokenizer, run.model.vocab_size)
    check_target(target, force)
    package("gguf")
    with published(target, force) as path:
        rules = gguf_rules(run.model, architecture)
        notes = write_gguf(run.model, architecture, rules, tokenizer, path, dtype)
        check_file(run.model, rules, path, dtype)
        agreement = check_llama_cpp(run.model, run.tokenizer, path, dtype)
        size = path.stat().st_size
    return ExportedGGUF(
        architecture.name, target, dtype, size, agreement, (*notes, *tokenizer.notes)
    )


def save_gguf(model: Transformer, tokenizer: Tokenizer, path: Path, dtype: Dtype = "fp32") -> None:
    """Write a model as a GGUF file, without a check."""
    architecture = choose_gguf(model.config)
    keys = gguf_tokenizer(tokenizer, model.vocab_size)
    write_gguf(model, architecture, gguf_rules(model, architecture), keys, path, dtype)


def choose_gguf(config: ModelConfig) -> GGUFArchitecture:
    """Return the architecture of llama.cpp; raises ConfigError when there is none."""
    architecture = choose(GGUF_ARCHITECTURES, config, "llama.cpp")
    if architecture.name == "gemma2" and config.num_layers == GEMMA_27B:
        raise ConfigError(
            "model.num_layers",
            f"llama.cpp takes a gemma2 of {GEMMA_27B} layers for the 27B model, whose attention "
            "has another scale",
        )
    return architecture


def gguf_rules(model: Transformer, architecture: GGUFArchitecture) -> Rules:
    """Return how the weights are stored."""
    config = model.config
    rules = [*architecture.layout.rules(config, model.vocab_size)]
    position = config.position
    if isinstance(position, RoPEConfig) and isinstance(position.scaling, Llama3ScalingConfig):
        plain = frequencies(position.theta, config.attention_width)
        factors = (plain / scaled(plain, position.scaling)).float()
        rules.append(Constant(("rope_freqs.weight",), lambda: factors))
    return rules


def write_gguf(
    model: Transformer,
    architecture: GGUFArchitecture,
    rules: Rules,
    tokenizer: GGUFTokenizer,
    path: Path,
    dtype: Dtype,
) -> tuple[str, ...]:
    """Write the file tensor by tensor; returns notes about tensors stored in another type."""
    gguf = package("gguf")
    writer = gguf.GGUFWriter(path, architecture.name)
    writer.add_file_type(getattr(gguf.LlamaFileType, KINDS[dtype][1]))
    writer.add_vocab_size(model.vocab_size)
    for key, value in architecture.keys(model.config).items():
        _add(writer, f"{architecture.name}.{key}", value)
    for key, value in tokenizer.keys.items():
        _add(writer, f"tokenizer.{key}", value)
    other: list[str] = []
    for name, _, data, kind in _tensors(model, rules, dtype):
        writer.add_tensor_info(name, data.shape, data.dtype, data.nbytes, kind)
        if dtype == "q8_0" and kind == gguf.GGMLQuantizationType.F16:
            other.append(name)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for _, _, data, _ in _tensors(model, rules, dtype):
            writer.write_tensor_data(data)
    finally:
        writer.close()
    if not other:
        return ()
    return (f"{len(other)} tensors whose rows are no multiple of 32 are fp16, not q8_0",)


def _add(writer: Any, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, list):
        writer.add_array(key, value)
    else:
        writer.add_string(key, value)


def _tensors(
    model: Transformer, rules: Rules, dtype: Dtype
) -> Iterator[tuple[str, Tensor, npt.NDArray[Any], Any]]:
    """Yield name, tensor, stored bytes and type of each tensor of the file."""
    gguf = package("gguf")
    weights = model.state_dict()
    for rule in rules:
        for name, x in rule.export(lambda key: weights[key].detach().cpu().float()).items():
            kind = stored_type(name, x.shape, dtype)
            values: npt.NDArray[Any] = x.contiguous().numpy()
            if kind != gguf.GGMLQuantizationType.F32:
                with np.errstate(over="ignore"):
                    values = gguf.quants.quantize(values, kind)
            if values.dtype == np.float16 and not np.isfinite(values).all():
                raise UserError(
                    f"{name} is not finite in fp16: its largest weight is "
                    f"{float(x.abs().max()):.3g}; use --dtype bf16 or fp32"
                )
            yield name, x, values, kind


def stored_type(name: str, shape: torch.Size, dtype: Dtype) -> Any:
    """Return gguf's type of a tensor: vectors are float32, matrices as `dtype` says."""
    types = package("gguf").GGMLQuantizationType
    if len(shape) < 2 or any(part in name for part in ALWAYS_FP32):
        return types.F32
    if dtype == "q8_0" and shape[-1] % 32:
        return types.F16
    return getattr(types, KINDS[dtype][0])
