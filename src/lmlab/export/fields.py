"""Reading a config.json of transformers: every field is mapped, required or irrelevant."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmlab.errors import UserError
from lmlab.export.extras import quiet_transformers

IRRELEVANT = frozenset(
    {
        # how the file came about
        "_name_or_path",
        "architectures",
        "dtype",
        "initializer_range",
        "model_type",
        "torch_dtype",
        "transformers_version",
        # what a forward pass returns, and how it is computed
        "chunk_size_feed_forward",
        "output_attentions",
        "output_hidden_states",
        "output_router_logits",
        "reorder_and_upcast_attn",
        "return_dict",
        "use_cache",
        # training
        "attention_dropout",
        "attn_pdrop",
        "embd_pdrop",
        "resid_pdrop",
        "router_aux_loss_coef",
        "router_jitter_noise",
        # heads for other tasks
        "id2label",
        "label2id",
        "problem_type",
        "summary_activation",
        "summary_first_dropout",
        "summary_proj_to_labels",
        "summary_type",
        "summary_use_proj",
        # in the tokenizer
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
        # defaults of `generate`
        "cache_implementation",
        "do_sample",
        "max_length",
        "task_specific_params",
        "temperature",
        "top_k",
        "top_p",
        # a second name of n_positions in files of GPT-2, which transformers does not read
        "n_ctx",
        # splits a product for tensor parallelism, with the same result
        "pretraining_tp",
    }
)
"""Fields that do not change the logits of a language model."""


class Fields:
    """The fields of a configuration, with those of the class that are not in the file."""

    def __init__(self, values: Mapping[str, Any], defaults: Mapping[str, Any], path: Path) -> None:
        self.values, self.defaults, self.path = values, defaults, path
        self.used: set[str] = set()

    def take(self, key: str) -> Any:
        """Return the value of a field that is mapped."""
        self.used.add(key)
        return self.values.get(key)

    def refuse(self, key: str, reason: str) -> UserError:
        """Return the error for a field that cannot be expressed here."""
        shown = json.dumps(self.values.get(key), default=str)
        return UserError(f"{self.path}: {key}={shown} cannot be imported: {reason}")

    def require(self, key: str, *allowed: Any) -> None:
        """Raise UserError unless a field has one of the values."""
        if self.take(key) not in allowed:
            raise self.refuse(key, f"only {' or '.join(json.dumps(v) for v in allowed)} is known")

    def finish(self) -> None:
        """Raise UserError for a field that nothing has read and that is not its class's default.

        A field that its class lacks may be null or false.
        """
        for key, value in self.values.items():
            if key in self.used or key in IRRELEVANT:
                continue
            allowed = (self.defaults[key],) if key in self.defaults else (None, False)
            if value not in allowed:
                raise self.refuse(key, "lmlab does not know the field")


def read_fields(folder: Path, known: Mapping[str, str]) -> tuple[str, Fields]:
    """Return the type of the model in a folder, and its fields.

    Raises UserError for a folder without a readable config.json, and for a type that is not `known`
    (type -> class of the model).
    """
    path = folder / "config.json"
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give one that transformers can load")
    if not path.is_file():
        raise UserError(f"{folder} has no config.json, so it is no model of transformers")
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    kind = str(given.get("model_type")) if isinstance(given, dict) else ""
    if kind not in known:
        raise UserError(
            f"{path}: model_type={json.dumps(kind)} cannot be imported; known are "
            f"{', '.join(known)}"
        )
    classes = given.get("architectures") or [known[kind]]
    if classes != [known[kind]]:
        raise UserError(f"{path}: architectures={json.dumps(classes)} is not [{known[kind]!r}]")
    with quiet_transformers() as transformers:
        cls = transformers.models.auto.configuration_auto.CONFIG_MAPPING[kind]
        try:
            values = cls.from_dict(given).to_dict()
        except Exception as error:  # a library's errors are of many kinds
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise UserError(f"{path}: transformers refuses it: {lines[0]}") from error
        defaults = cls().to_dict()
    return kind, Fields(values, defaults, path)
