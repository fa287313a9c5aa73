"""Models for other tools: folders of transformers and GGUF files, out and in."""

from typing import TYPE_CHECKING

from lmlab.lazy import lazy_exports

if TYPE_CHECKING:
    from lmlab.export.gguf_file import export_gguf, save_gguf
    from lmlab.export.huggingface import export_huggingface
    from lmlab.export.importing import import_huggingface

__all__ = ["export_gguf", "export_huggingface", "import_huggingface", "save_gguf"]

__getattr__ = lazy_exports(
    __name__,
    {
        "huggingface": ("export_huggingface",),
        "gguf_file": ("export_gguf", "save_gguf"),
        "importing": ("import_huggingface",),
    },
)
