"""What a predicted run would cost on a device."""

from dataclasses import dataclass

from lmlab.accounting.costs import Costs, count_costs
from lmlab.gpu.names import Precision
from lmlab.gpu.sheets import Sheet
from lmlab.model.config import ModelConfig
from lmlab.optim.config import OptimizerConfig
from lmlab.scaling.shapes import HEAD_DIM, Shape, ShapeRange

HOUR = 3600
RANGE = ShapeRange((HEAD_DIM, 256 * HEAD_DIM), (1, 160), (1, 256))


@dataclass(frozen=True)
class RunCost:
    """Time and memory of training a real shape on a number of tokens."""

    shape: Shape
    costs: Costs
    tokens: float
    seconds: float
    """Of one device."""
    devices: int
    """Devices whose memory holds weights, gradients, optimizer state and one sequence."""

    @property
    def device_hours(self) -> float:
        """Hours of one device."""
        return self.seconds / HOUR


def run_cost(
    parameters: float,
    tokens: float,
    sheet: Sheet,
    *,
    model: ModelConfig,
    optimizer: OptimizerConfig,
    vocab_size: int,
    precision: Precision = "bf16",
    mfu: float = 0.4,
) -> RunCost:
    """Return what training a shape of about this size costs, counted by the accounting.

    `model` gives everything but width, depth and heads; `mfu` is the share of the device's peak.
    Raises UserError for a precision that the device does not have.
    """
    shape = RANGE.nearest(parameters)
    size = {"d_model": shape.d_model, "num_layers": shape.num_layers}
    values = model.model_dump() | size | {
        "num_heads": shape.num_heads, "head_dim": None, "d_ff": None
    }  # fmt: skip
    config = ModelConfig.model_validate(values)
    costs = count_costs(config, optimizer, vocab_size, precision)
    seconds = costs.training_seconds(tokens, sheet.peak(precision), mfu)
    needed = costs.fixed_bytes + costs.activation_bytes
    return RunCost(shape, costs, tokens, seconds, max(1, -(-int(needed) // int(sheet.memory))))
