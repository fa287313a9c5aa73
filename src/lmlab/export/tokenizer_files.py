"""The files of a tokenizer in a folder of transformers."""

import json
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from lmlab.alignment.templates import Template
from lmlab.files import atomic_write
from lmlab.loading import END_OF_DOCUMENT
from lmlab.tokenizer import Tokenizer
from lmlab.tokenizer.formats import TEMPLATE


def special_ids(tokenizer: Tokenizer) -> dict[str, int | None]:
    """Return the ids that config.json and generation_config.json name.

    A document begins with the end of the one before it, so that all three are one token.
    """
    end = tokenizer.special_tokens.get(END_OF_DOCUMENT)
    return {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end}


def reply_end(tokenizer: Tokenizer) -> int | None:
    """Return the special token that ends a reply in the chat template, if it is another one.

    None, too, for an imported template that cannot be read here.
    """
    if tokenizer.chat_template is None:
        return None
    special = tokenizer.special_tokens
    try:
        end = Template(tokenizer.chat_template).stop(list(special))
    except TemplateError:
        return None
    return None if end is None or end == END_OF_DOCUMENT else special.get(end)


def write_tokenizer(tokenizer: Tokenizer, folder: Path, context_length: int) -> None:
    """Write tokenizer.json, tokenizer_config.json, and the chat template if there is one."""
    tokenizer.to_huggingface(folder / "tokenizer.json")
    values: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context_length,
        "clean_up_tokenization_spaces": False,
        "add_prefix_space": False,
    }
    if END_OF_DOCUMENT in tokenizer.special_tokens:
        values |= dict.fromkeys(("bos_token", "eos_token", "pad_token"), END_OF_DOCUMENT)
    write_json(folder / "tokenizer_config.json", values)
    if tokenizer.chat_template is not None:
        with atomic_write(folder / TEMPLATE) as file:
            file.write(tokenizer.chat_template)


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write a JSON file."""
    with atomic_write(path) as file:
        json.dump(values, file, indent=2)
        file.write("\n")
