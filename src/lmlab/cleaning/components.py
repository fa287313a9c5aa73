"""Connected components of a graph whose edges arrive in pieces, in four bytes a node."""

import numpy as np
from jaxtyping import Int32

Nodes = Int32[np.ndarray, " edges"]
Parents = Int32[np.ndarray, " nodes"]


def separate(nodes: int) -> Parents:
    """Return the components of nodes without edges; a node's parent is never after it."""
    return np.arange(nodes, dtype=np.int32)


def connect(parents: Parents, a: Nodes, b: Nodes) -> None:
    """Join the components of the ends of each edge."""
    while True:
        above, below = _roots(parents, a), _roots(parents, b)
        parents[a], parents[b] = above, below  # the next walk is a step
        apart = above != below
        if not apart.any():
            return
        first = np.minimum(above[apart], below[apart])
        np.minimum.at(parents, np.maximum(above[apart], below[apart]), first)


def flatten(parents: Parents) -> None:
    """Make each node's parent the first node of its component."""
    while (changed := parents != parents[parents]).any():
        parents[changed] = parents[parents[changed]]


def _roots(parents: Parents, nodes: Nodes) -> Nodes:
    """Return the first known node of the component of each."""
    roots = parents[nodes]
    while not np.array_equal(upper := parents[roots], roots):
        roots = upper
    return roots
