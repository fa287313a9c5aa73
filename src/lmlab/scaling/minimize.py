"""L-BFGS on many problems of the same shape at once."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

Objective = Callable[
    [Float[np.ndarray, "active n"], Int[np.ndarray, " active"]],
    tuple[Float[np.ndarray, " active"], Float[np.ndarray, "active n"]],
]
"""Values and gradients of problems at their points; the second argument tells which problems."""
MEMORY = 8
"""Pairs of steps and changes of the gradient that approximate the curvature."""
ARMIJO = 1e-4
HALVINGS = 25
LARGEST_STEP = 5.0
"""Of a variable in one iteration."""


@dataclass(frozen=True)
class Minima:
    """Where the minimisation stopped."""

    x: Float[np.ndarray, "problems n"]
    value: Float[np.ndarray, " problems"]
    gradient: Float[np.ndarray, " problems"]
    """Largest absolute entry of the gradient."""
    converged: Bool[np.ndarray, " problems"]
    iterations: int


def minimize(
    objective: Objective,
    start: Float[np.ndarray, "problems n"],
    *,
    tolerance: float = 1e-7,
    iterations: int = 300,
) -> Minima:
    """Minimise all problems by L-BFGS with backtracking (Nocedal and Wright 2006, algorithm 7.5).

    A problem has converged when its gradient is below `tolerance` times its value, where that is
    above 1.
    """
    x = start.astype(float).copy()
    count, n = x.shape
    everything = np.arange(count)
    value, gradient = objective(x, everything)
    steps = np.zeros((MEMORY, count, n))
    changes = np.zeros((MEMORY, count, n))
    inverse = np.zeros((MEMORY, count))
    stuck = np.zeros(count, bool)
    done = 0
    for iteration in range(iterations):
        unfinished = np.abs(gradient).max(1) > tolerance * np.maximum(1, np.abs(value))
        active = np.flatnonzero(unfinished & ~stuck)
        if not len(active):
            break
        done = iteration + 1
        direction = _direction(
            gradient[active], steps[:, active], changes[:, active], inverse[:, active], iteration
        )
        new_x, new_value, new_gradient, moved = _search(
            objective, active, x[active], value[active], gradient[active], direction
        )
        step, change = new_x - x[active], new_gradient - gradient[active]
        curvature = np.einsum("bn,bn->b", step, change)
        good = curvature > 1e-12 * np.einsum("bn,bn->b", change, change)
        slot = iteration % MEMORY
        steps[slot, active], changes[slot, active] = step, change
        inverse[slot, active] = np.where(good, 1 / np.where(good, curvature, 1), 0)
        forget = active[~moved & (inverse[:, active] > 0).any(0)]
        stuck[active[~moved]] = True
        stuck[forget] = False  # once more, along the gradient
        inverse[:, forget] = 0
        x[active], value[active], gradient[active] = new_x, new_value, new_gradient
    largest = np.abs(gradient).max(1)
    converged = largest <= tolerance * np.maximum(1, np.abs(value))
    return Minima(x, value, largest, converged, done)


def _direction(
    gradient: Float[np.ndarray, "active n"],
    steps: Float[np.ndarray, "memory active n"],
    changes: Float[np.ndarray, "memory active n"],
    inverse: Float[np.ndarray, "memory active"],
    iteration: int,
) -> Float[np.ndarray, "active n"]:
    """Return the two-loop recursion's direction; a pair with inverse 0 does not count."""
    order = [i % MEMORY for i in range(iteration - 1, max(-1, iteration - 1 - MEMORY), -1)]
    q = gradient.copy()
    weights = {}
    for slot in order:
        weights[slot] = inverse[slot] * np.einsum("bn,bn->b", steps[slot], q)
        q -= weights[slot][:, None] * changes[slot]
    norm = np.sqrt(np.einsum("bn,bn->b", gradient, gradient))
    scale = 1 / np.maximum(norm, 1)
    for slot in reversed(order):  # the newest that counts is last
        squared = np.einsum("bn,bn->b", changes[slot], changes[slot])
        known = inverse[slot] > 0
        scale = np.where(known, 1 / np.where(known, inverse[slot] * squared, 1), scale)
    q *= scale[:, None]
    for slot in reversed(order):
        back = inverse[slot] * np.einsum("bn,bn->b", changes[slot], q)
        q += (weights[slot] - back)[:, None] * steps[slot]
    uphill = np.einsum("bn,bn->b", q, gradient) <= 0
    q[uphill] = gradient[uphill] / np.maximum(norm[uphill], 1)[:, None]
    q *= np.minimum(1, LARGEST_STEP / np.maximum(np.abs(q).max(1), 1e-300))[:, None]
    return -q


def _search(
    objective: Objective,
    active: Int[np.ndarray, " active"],
    x: Float[np.ndarray, "active n"],
    value: Float[np.ndarray, " active"],
    gradient: Float[np.ndarray, "active n"],
    direction: Float[np.ndarray, "active n"],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, Bool[np.ndarray, " active"]]:
    """Shorten the steps of all problems until each decreases its value enough; else it stays."""
    slope = np.einsum("bn,bn->b", direction, gradient)
    length = np.ones(len(active))
    new_x, new_value, new_gradient = x.copy(), value.copy(), gradient.copy()
    left = np.arange(len(active))
    for _ in range(HALVINGS):
        trial = x[left] + length[left, None] * direction[left]
        f, g = objective(trial, active[left])
        enough = f <= value[left] + ARMIJO * length[left] * slope[left]
        fine = enough & np.isfinite(f)
        taken = left[fine]
        new_x[taken], new_value[taken], new_gradient[taken] = trial[fine], f[fine], g[fine]
        kept = f[~fine]
        left = left[~fine]
        if not len(left):
            break
        drop = kept - value[left] - length[left] * slope[left]
        fit = -slope[left] * length[left] ** 2 / (2 * np.where(drop > 0, drop, np.inf))
        usable = np.isfinite(fit) & (fit > 0)
        length[left] = np.clip(np.where(usable, fit, 0), 0.1 * length[left], 0.5 * length[left])
    moved = np.ones(len(active), bool)
    moved[left] = False
    return new_x, new_value, new_gradient, moved
