"""Connected components whose edges arrive in pieces, against SciPy's."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lmlab.cleaning.components import connect, flatten, separate

graphs = st.integers(1, 40).flatmap(
    lambda nodes: st.tuples(
        st.just(nodes),
        st.lists(st.lists(st.tuples(st.integers(0, nodes - 1), st.integers(0, nodes - 1)))),
    )
)


def components(nodes: int, pieces: list[list[tuple[int, int]]]) -> list[int]:
    parents = separate(nodes)
    for piece in pieces:
        ends = np.array(piece, np.int32).reshape(-1, 2)
        connect(parents, ends[:, 0], ends[:, 1])
    flatten(parents)
    return parents.tolist()


@given(graphs)
def test_each_node_gets_the_first_of_its_component(
    graph: tuple[int, list[list[tuple[int, int]]]],
) -> None:
    nodes, pieces = graph
    a, b = np.array([pair for piece in pieces for pair in piece] or [(0, 0)]).T
    _, labels = connected_components(coo_array((np.ones(len(a)), (a, b)), shape=(nodes, nodes)))
    expected = [int(np.flatnonzero(labels == label)[0]) for label in labels]
    assert components(nodes, pieces) == expected


def test_a_long_chain_from_its_end() -> None:
    """Each edge hangs the tree so far under a new root, the deepest that a tree can get."""
    size = 2000
    assert components(size, [[(k, k - 1)] for k in range(size - 1, 0, -1)]) == [0] * size
