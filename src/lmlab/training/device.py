"""Which device, which precision."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch

from lmlab.errors import ConfigError


def resolve_device(name: str) -> torch.device:
    """Return the device; auto takes CUDA, MPS or CPU. One that is not there is an error."""
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count() if cuda else 0
        if count <= (device.index or 0):
            found = f"this machine has {count}" if count else "torch finds none here"
            raise ConfigError("trainer.device", f"'{name}' is not there, {found}; try device=auto")
    if device.type == "mps" and not mps:
        raise ConfigError("trainer.device", "'mps' is not there; try device=auto")
    return device


def resolve_precision(name: str, device: torch.device) -> str:
    """Return fp32 or bf16; auto takes bf16 where the device multiplies it faster than float32."""
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type == "cpu":
        fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return "bf16" if fast else "fp32"
    return "fp32"


def autocast_for(
    precision: str, device: torch.device
) -> Callable[[], AbstractContextManager[object]]:
    """Return the context that runs matrix products in the precision; weights stay float32."""
    if precision == "fp32":
        return nullcontext
    return partial(torch.autocast, device.type, dtype=torch.bfloat16)


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """Return the state of the global random number generators."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: dict[str, torch.Tensor], device: torch.device) -> None:
    """Put the generators back into a state that `random_state` returned."""
    torch.set_rng_state(state["cpu"].cpu())
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
