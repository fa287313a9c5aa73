"""What the commands print."""

from pathlib import Path

from lmlab.export.gguf_file import ExportedGGUF
from lmlab.export.huggingface import Exported
from lmlab.export.importing import Imported
from lmlab.export.verify import Agreement


def exported(done: Exported | ExportedGGUF) -> str:
    """Return what was written and how it was checked."""
    size = f"{done.bytes / 1e6:,.1f} MB"
    lines = [f"{done.path}: {done.architecture}, {done.dtype}, {size}"]
    if isinstance(done, Exported):
        lines += [_agreement("transformers", done.agreement)]
        lines += [
            "  AutoModelForCausalLM and AutoTokenizer of transformers load it from "
            f"{str(done.path)!r}"
        ]
        return "\n".join(lines)
    if done.agreement is None:
        lines += ["  all tensors read back; llama-cpp-python is not installed, so no logits"]
    else:
        lines += [_agreement("llama.cpp", done.agreement)]
    return "\n".join([*lines, *(f"  note: {note}" for note in done.notes)])


def imported(done: Imported) -> str:
    """Return what was made and how it was checked."""
    lines = [f"{done.directory}: {done.architecture} from {done.source}"]
    lines += [_agreement("transformers", done.agreement)]
    lines += [f"  note: {note}" for note in done.notes]
    lines += [f"  lmlab generate {_shown(done.directory)} --prompt 'Once upon a time'"]
    return "\n".join(lines)


def _shown(path: Path) -> str:
    text = str(path)
    return repr(text) if any(c in text for c in " '$*") else text


def _agreement(library: str, agreement: Agreement) -> str:
    return (
        f"  checked with {library}: the same tokens; logits differ by at most "
        f"{agreement.difference:.1e} (largest {agreement.scale:.1f}) over {agreement.tokens} tokens"
    )
