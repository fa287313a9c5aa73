"""A training run with the Triton kernels has the losses of one with torch."""

import pytest
import torch
from kernel_cases import INTERPRETED

from training_losses import losses

pytest.importorskip("triton")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not (INTERPRETED or torch.cuda.is_available()),
        reason="needs a CUDA device, or TRITON_INTERPRET=1",
    ),
]
SMALL = ["model.d_model=32", "model.num_heads=2", "model.context_length=20"]


@pytest.mark.parametrize(
    "overrides",
    [
        ["model.attention.num_kv_heads=1"],
        ["model/attention=sliding_window", "model.attention.window=7"],
        ["model.attention.logit_softcap=5", "model.attention.qk_norm=true"],
    ],
    ids=["gqa", "window", "softcap"],
)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_losses_are_those_of_the_reference(
    overrides: list[str], precision: str, device: str
) -> None:
    if INTERPRETED and precision != "fp32":
        pytest.skip("the interpreter runs on the CPU, where the model has no float16")
    torch.set_float32_matmul_precision("highest")
    triton = ["model.attention.backend=triton", "trainer.kernels=triton"]
    ours = losses(*SMALL, *overrides, *triton, precision=precision, device=device)
    reference = ["model.attention.backend=eager", "trainer.kernels=torch"]
    wanted = losses(*SMALL, *overrides, *reference, precision=precision, device=device)
    tolerance = 1e-5 if precision == "fp32" else 2e-2
    assert ours == pytest.approx(wanted, rel=tolerance)
    assert wanted[-1] < wanted[0]
