"""The smallest training there is: which learning rates of plain SGD converge, and which do not?

python experiments/sgd_toy/run.py          # a second; writes the table and the plot of the README
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

from benchmarks.tables import markdown, put_section  # noqa: E402

from lmlab.optim import SGD  # noqa: E402

RATES, STEPS = (1.0, 10.0, 100.0, 1000.0), 10


def losses(lr: float, steps: int = STEPS) -> list[float]:
    """Return the mean square of 100 weights before each step of rate `lr / sqrt(t + 1)`."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.nn.Parameter(5 * torch.randn(10, 10, generator=generator))
    optimizer = SGD([weights], lr=lr)
    seen = []
    for step in range(steps + 1):
        optimizer.zero_grad()
        loss = weights.square().mean()
        loss.backward()
        seen.append(loss.item())
        optimizer.param_groups[0]["lr"] = lr / (step + 1) ** 0.5
        optimizer.step()
    return seen


def main() -> None:
    """Write the table and the plot."""
    curves = {lr: losses(lr) for lr in RATES}
    _, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for lr, curve in curves.items():
        axes.plot(curve, marker="o", markersize=3, label=f"lr {lr:g}")
    axes.set(yscale="log", xlabel="step", ylabel="loss", xticks=range(STEPS + 1))
    axes.grid(alpha=0.3)
    axes.legend()
    plt.savefig(HERE / "loss.png", dpi=120)
    shown = range(0, STEPS + 1, 2)
    rows = [[f"{lr:g}", *(f"{curve[step]:.3g}" for step in shown)] for lr, curve in curves.items()]
    table = markdown(["lr", *(f"step {step}" for step in shown)], rows, text=0)
    put_section(HERE / "README.md", "loss", f"{table}\n\n![loss](loss.png)")
    print(table)


if __name__ == "__main__":
    main()
