"""Every token of a document is counted once, with as much text before it as promised."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmlab.errors import UserError
from lmlab.evaluation.windows import Window, check_stride, sliding_windows


@given(st.data())
def test_every_token_is_counted_once_with_enough_before_it(data: st.DataObject) -> None:
    length = data.draw(st.integers(0, 200))
    context = data.draw(st.integers(1, 40))
    stride = data.draw(st.integers(1, context))
    counted: list[int] = []
    for window in sliding_windows(length, context, stride):
        assert 0 <= window.begin < window.end <= length
        assert window.end - window.begin <= context
        assert 1 <= window.scored <= window.end - window.begin
        # A window that does not begin the document is full.
        assert window.begin == 0 or window.end - window.begin == context
        for target in range(window.end - window.scored, window.end):
            assert target - window.begin >= min(target, context - stride)
        counted.extend(range(window.end - window.scored, window.end))
    assert counted == list(range(length))


def test_windows_worked_by_hand() -> None:
    assert list(sliding_windows(10, 4, 4)) == [Window(0, 4, 4), Window(4, 8, 4), Window(6, 10, 2)]
    assert list(sliding_windows(7, 4, 2)) == [Window(0, 4, 4), Window(2, 6, 2), Window(3, 7, 1)]
    assert list(sliding_windows(3, 4, 1)) == [Window(0, 3, 3)]


@given(st.integers(1, 100), st.integers(1, 30))
def test_windows_without_overlap_are_those_of_lm_eval(length: int, context: int) -> None:
    from lm_eval.utils import get_rolling_token_windows

    ids = list(range(1, length + 1))  # the prefix is 0
    theirs = get_rolling_token_windows(ids, 0, context, 1)
    inputs = [0, *ids[:-1]]
    ours = [
        (inputs[w.begin : w.end], ids[w.end - w.scored : w.end])
        for w in sliding_windows(length, context, context)
    ]
    assert ours == list(theirs)


def test_strides_and_context_lengths_out_of_range_are_refused() -> None:
    assert check_stride(None, None, 64, "run") == (32, 64)
    assert check_stride(None, 1, 64, "run") == (1, 1)
    assert check_stride(5, 20, 64, "run") == (5, 20)
    for stride, context, what in ((0, None, "stride"), (65, None, "stride"), (21, 20, "stride")):
        with pytest.raises(UserError, match=rf"the {what} must be from 1 to .* got {stride}"):
            check_stride(stride, context, 64, "run")
    for context in (0, 65):
        with pytest.raises(UserError, match=r"context length must be from 1 to 64, .* run, got"):
            check_stride(None, context, 64, "run")
