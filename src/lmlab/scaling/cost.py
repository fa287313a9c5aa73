"""What a predicted run would cost on a device."""

from dataclasses import asdict, dataclass

from pydantic import ValidationError

from lmlab.accounting.costs import Costs, count_costs
from lmlab.errors import UserError
from lmlab.gpu.names import Precision
from lmlab.gpu.sheets import Sheet
from lmlab.model.config import ModelConfig
from lmlab.optim.config import OptimizerConfig
from lmlab.scaling.shapes import HEAD_DIM, Shape, ShapeRange

HOUR = 3600
RANGE = ShapeRange((HEAD_DIM, 256 * HEAD_DIM), (1, 160), (1, 256))
FARTHEST = 2
"""Factor between a size and that of the shape that is counted for it."""


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
    Raises UserError for a precision that the device does not have, and when no shape within a
    factor of 2 of the size fits the model.
    """
    shape, config = _shaped(model, parameters)
    costs = count_costs(config, optimizer, vocab_size, precision)
    seconds = costs.training_seconds(tokens, sheet.peak(precision), mfu)
    needed = costs.fixed_bytes + costs.activation_bytes
    return RunCost(shape, costs, tokens, seconds, max(1, -(-int(needed) // int(sheet.memory))))


def _shaped(model: ModelConfig, parameters: float) -> tuple[Shape, ModelConfig]:
    """Return the nearest shape that fits the model, by its heads and layers, and that model."""
    values, problems = model.model_dump(), []
    for shape in RANGE.by_distance(parameters):
        if 1 / FARTHEST <= shape.parameters / parameters <= FARTHEST:
            size = asdict(shape) | {"head_dim": None, "d_ff": None}
            try:
                return shape, ModelConfig.model_validate(values | size)
            except ValidationError as error:
                problems.append(error.errors()[0]["msg"].removeprefix("Value error, "))
    if problems:
        why, advice = problems[0], "give another --model, or leave out --device"
    else:
        smallest, largest = (
            Shape(width, depth, 1).parameters
            for width, depth in zip(RANGE.widths, RANGE.depths, strict=True)
        )
        why, advice = f"shapes have {smallest:.2g} to {largest:.2g}", "leave out --device"
    raise UserError(
        f"--device: no model of about {parameters:.3g} parameters can be counted: {why}; {advice}"
    )
