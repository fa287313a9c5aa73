"""Hardware sheets: what a GPU has, from its vendor's documents."""

import difflib
import re
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from lmlab.errors import UserError
from lmlab.gpu.names import SHEETS, Precision, sheet_names
from lmlab.schema import Config


def _no_truth_value(value: object) -> object:
    if isinstance(value, bool):  # pydantic takes true for 1.0
        raise PydanticCustomError("float_type", "Input should be a valid number")
    return value


Count = Annotated[int, Field(ge=1, strict=True)]
Small = Annotated[int, Field(ge=1, le=65536, strict=True)]
Rate = Annotated[float, BeforeValidator(_no_truth_value), Field(gt=0, lt=1e30)]
PARTS = (
    ("warp_size", "max_threads_per_block"),
    ("max_threads_per_block", "max_threads_per_sm"),
    ("register_unit", "registers_per_block"),
    ("registers_per_block", "registers_per_sm"),
    ("registers_per_thread", "registers_per_block"),
    ("schedulers_per_sm", "registers_per_sm"),
    ("shared_memory_unit", "shared_memory_per_sm"),
)
"""Fields of which the first cannot be more than the second."""
OTHER_PEAKS = Path(__file__).parent / "other_peaks.yaml"


class Sheet(Config):
    """What the calculators need to know of a GPU; sizes are in bytes, rates per second."""

    name: str
    """The GPU, with its form factor."""
    device_name: str
    """Words by which CUDA's name of the device is recognised."""
    compute_capability: Annotated[str, Field(pattern=r"^\d+\.\d$")]
    """As text: "9.0"."""
    sms: Count
    """Streaming multiprocessors that are enabled."""
    warp_size: Small
    """Threads that execute one instruction together."""
    schedulers_per_sm: Small
    """Parts of an SM that have their own scheduler and registers."""
    max_threads_per_block: Small
    max_threads_per_sm: Small
    max_blocks_per_sm: Small
    registers_per_sm: Count
    """Registers of 32 bits."""
    registers_per_block: Count
    registers_per_thread: Small
    register_unit: Count
    """Registers are allocated to a warp in multiples of this."""
    shared_memory_per_sm: Count
    shared_memory_per_block: Count
    """Largest that a block can ask for, beyond 48 KiB with an opt-in."""
    reserved_shared_memory: Annotated[int, Field(ge=0, strict=True)]
    """Taken by the system in each block."""
    shared_memory_unit: Count
    """Shared memory is allocated to a block in multiples of this."""
    sector: Small
    """Bytes that memory transfers at least."""
    l2: Count
    memory: Count
    bandwidth: Rate
    """Bytes per second between the memory and the chip."""
    link: Rate | None = None
    """Bytes per second that a device sends to another one in its node; null: unknown."""
    network: Rate | None = None
    """Bytes per second that a device sends to other nodes; null: unknown."""
    devices_per_node: Count | None = None
    """Devices of a usual node; null: unknown."""
    flops: Annotated[dict[Precision, Rate], Field(min_length=1)]
    """Peak FLOP/s by precision, without sparsity."""
    sources: dict[str, str] = Field(default_factory=dict)
    """Where the figures are from: words of the field names -> document."""

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        for part, whole in PARTS:
            if getattr(self, part) > getattr(self, whole):
                raise ValueError(
                    f"{part} {getattr(self, part)} is more than {whole} {getattr(self, whole)}"
                )
        of_block = self.shared_memory_per_block + self.reserved_shared_memory
        if of_block > self.shared_memory_per_sm:
            raise ValueError(
                f"shared_memory_per_block with reserved_shared_memory, {of_block}, is more than "
                f"shared_memory_per_sm {self.shared_memory_per_sm}"
            )
        return self

    @property
    def warps_per_sm(self) -> int:
        """Warps that an SM can hold."""
        return self.max_threads_per_sm // self.warp_size

    def peak(self, precision: Precision) -> float:
        """Return the FLOP/s of a precision; raises UserError when the GPU does not have it."""
        if precision not in self.flops:
            known = ", ".join(self.flops)
            raise UserError(f"{self.name} has no peak for {precision}; its precisions are {known}")
        return self.flops[precision]


def load_sheet(name: str) -> Sheet:
    """Return a sheet by its name, or from a YAML file of one's own.

    Raises UserError for an unknown name, and one that names each missing or wrong field of a file.
    """
    if name.endswith((".yaml", ".yml")):
        return read_sheet(Path(name).expanduser())
    known = {sheet.casefold(): sheet for sheet in sheet_names()}
    found = known.get(name.casefold().replace(" ", "_"))
    if found is None:
        near = difflib.get_close_matches(name.casefold(), known, n=1, cutoff=0.4)
        hint = f" (did you mean '{known[near[0]]}'?)" if near else ""
        raise UserError(
            f"no hardware sheet '{name}'{hint}; sheets: {', '.join(sheet_names())}, or FILE.yaml"
        )
    return _packaged(found)


@cache
def _packaged(name: str) -> Sheet:
    return read_sheet(SHEETS / f"{name}.yaml")


def read_sheet(path: Path) -> Sheet:
    """Return the sheet in a YAML file; raises UserError naming each missing or wrong field."""
    try:
        values: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a hardware sheet: it is not UTF-8") from error
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" in line {where.line + 1}" if where else ""
        raise UserError(f"{path} is not YAML{line}: {getattr(error, 'problem', error)}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} is not a hardware sheet: expected fields like `sms: 132`")
    try:
        return Sheet.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{path}: {_problems(error)}") from error


def _problems(error: ValidationError) -> str:
    """Return all problems in one line: missing fields first, then each wrong value."""
    missing, wrong = [], []
    for detail in error.errors():
        field = ".".join(str(part) for part in detail["loc"] if part != "[key]")
        if detail["type"] == "missing":
            missing.append(field)
        elif detail["type"] == "extra_forbidden":
            near = difflib.get_close_matches(field, Sheet.model_fields, n=1)
            wrong.append(f"unknown field {field}" + (f", did you mean {near[0]}?" if near else ""))
        else:
            message = detail["msg"][:1].lower() + detail["msg"][1:]
            got = f", got {detail['input']!r}" if field else ""
            wrong.append(f"{field}: {message}{got}" if field else message)
    parts = [f"missing {', '.join(missing)}"] if missing else []
    return "; ".join(parts + wrong)


def find_sheet(device_name: str) -> Sheet | None:
    """Return the sheet of a device by CUDA's name of it; None for others."""
    if _other_peak(device_name) is not None:  # another form factor of the same chip
        return None
    sheets = (_packaged(name) for name in sheet_names())
    return next((s for s in sheets if re.search(rf"\b{s.device_name}\b", device_name)), None)


def bf16_peak(device_name: str) -> float | None:
    """Return the data sheet's dense bfloat16 FLOP/s by CUDA's name of a device, if it is known."""
    sheet = find_sheet(device_name)
    return sheet.flops["bf16"] if sheet else _other_peak(device_name)


def _other_peak(device_name: str) -> float | None:
    peaks = yaml.safe_load(OTHER_PEAKS.read_text(encoding="utf-8"))
    return next((float(p) for k, p in peaks.items() if re.search(rf"\b{k}\b", device_name)), None)
