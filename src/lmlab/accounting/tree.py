"""The modules of a model as a tree, with the parameters and FLOPs of each."""

from dataclasses import dataclass, field

from torch import nn

from lmlab.accounting.count import flops_by_module
from lmlab.model.attention.heads import HeadProjections
from lmlab.model.attention.softmax import SoftmaxAttention

Line = tuple[str, str, str]


def tree(model: nn.Module, context_length: int) -> str:
    """Return a line for each module that has parameters, equal layers as one.

    Parameters that two modules share count in the first; FLOPs are of one sequence's forward pass.
    """
    walk = _Walk(flops_by_module(model, context_length))
    walk.add("", "model", model, depth=0)
    lines = [("", "parameters", "FLOPs"), *walk.lines]
    widths = [max(len(line[column]) for line in lines) for column in range(3)]
    return "\n".join(
        f"{title:<{widths[0]}}  {count:>{widths[1]}}  {flops:>{widths[2]}}".rstrip()
        for title, count, flops in lines
    )


@dataclass
class _Walk:
    flops: dict[str, int]
    lines: list[Line] = field(default_factory=list)
    counted: set[int] = field(default_factory=set)

    def add(self, name: str, label: str, module: nn.Module, depth: int) -> None:
        """Append the lines of a module and of those inside it."""
        parameters = {id(p): p.numel() for p in module.parameters() if id(p) not in self.counted}
        flops = sum(
            n for key, n in self.flops.items() if f"{key}.".startswith(f"{name}.".lstrip("."))
        )
        kind = str(module.mask) if isinstance(module, SoftmaxAttention) else type(module).__name__
        title = f"{'  ' * depth}{label}: {kind}"
        self.lines.append((title, f"{sum(parameters.values()):,}", f"{flops:.4g}"))
        children = [(k, m) for k, m in module.named_children() if list(m.parameters())]
        if children:  # beside modules, what belongs to the module itself is worth a line
            for key, parameter in module.named_parameters(recurse=False):
                shape = " x ".join(map(str, parameter.shape))
                title = f"{'  ' * (depth + 1)}{key}: {shape}"
                self.lines.append((title, f"{parameter.numel():,}", ""))
        alike: dict[str, list[tuple[str, nn.Module]]] = {}
        for key, child in children:
            by = _signature(child) if isinstance(module, nn.ModuleList) else key
            alike.setdefault(by, []).append((key, child))
        for group in alike.values():
            key, first = group[0]
            self.add(f"{name}.{key}".lstrip("."), _label([k for k, _ in group]), first, depth + 1)
            self.counted.update(id(p) for _, child in group for p in child.parameters())


def _label(keys: list[str]) -> str:
    """Return `8 x 0-7` for keys in a row, `4 x 0,2,4,6` for others."""
    if len(keys) == 1:
        return keys[0]
    numbers = [int(key) for key in keys]
    in_a_row = numbers[-1] - numbers[0] == len(numbers) - 1
    return f"{len(keys)} x " + (f"{keys[0]}-{keys[-1]}" if in_a_row else ",".join(keys))


def _signature(module: nn.Module) -> str:
    shapes = [(name, tuple(p.shape)) for name, p in module.named_parameters()]
    attentions = [m.config for m in module.modules() if isinstance(m, HeadProjections)]
    return repr(([type(m).__name__ for m in module.modules()], shapes, attentions))
