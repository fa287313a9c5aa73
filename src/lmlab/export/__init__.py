"""Models for other tools: folders of transformers and GGUF files, out and in."""

from typing import TYPE_CHECKING

from lmlab.lazy import lazy_exports

if TYPE_CHECKING:
    from lmlab.export.huggingface import export_huggingface

__all__ = ["export_huggingface"]

__getattr__ = lazy_exports(__name__, {"huggingface": ("export_huggingface",)})
