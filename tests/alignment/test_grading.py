"""Rewards that fail cost one response, not the run."""

import math
import os
import time

import pytest

from lmlab.alignment.rewards import NO_REWARD, Grader, Reward
from lmlab.errors import UserError

FAULTY = "alignment.test_grading.faulty"
RIGHT = Reward(1, 1, 1)


def faulty(prompt: str, response: str, truth: str) -> Reward:
    print("what a reward prints does not disturb")
    match response:
        case "raise":
            raise RuntimeError("no idea")
        case "nan":
            return Reward(1, 1, math.nan)
        case "hang":
            time.sleep(1000)
        case "exit":
            os._exit(3)
        case "none":
            return None  # type: ignore[return-value]
    return Reward.of(True, response == truth)


def asked(*responses: str) -> list[tuple[str, str, str]]:
    return [("1+1=", response, "2") for response in responses]


def test_failures_in_this_process_are_counted() -> None:
    with Grader(FAULTY) as grader:
        found = grader(asked("2", "raise", "nan", "none", "3"))
    assert found == [RIGHT, NO_REWARD, NO_REWARD, NO_REWARD, Reward(1, 0, 0)]
    assert grader.failures == {"error": 3}
    assert "a reward has the keys" in grader.last_error


@pytest.mark.parametrize("processes", [1, 2])
def test_failures_in_child_processes_are_counted(processes: int) -> None:
    responses = ("2", "raise", "hang", "nan", "2", "exit", "hang", "2")
    # long enough for a slow machine: only what hangs waits for it
    with Grader(FAULTY, deadline=2.0, processes=processes) as grader:
        found = grader(asked(*responses))
        assert found == [RIGHT if response == "2" else NO_REWARD for response in responses]
        assert grader.failures == {"error": 3, "deadline": 2}
        assert grader(asked("2")) == [RIGHT]  # and it goes on
        children = [worker.process for worker in grader._workers]
    assert all(child is None or child.poll() is not None for child in children)


def test_what_cannot_be_a_reward_is_said_before_a_run() -> None:
    with pytest.raises(UserError, match=r"reward 'no\.module\.here' cannot be imported"):
        Grader("no.module.here", deadline=1.0)


def test_text_of_any_kind_reaches_a_child() -> None:
    with Grader("r1_zero", deadline=10.0) as grader:
        odd = "</think> <answer>\n\u2028\ud83d\ude00é\0</answer>".encode("utf-16", "surrogatepass")
        response = odd.decode("utf-16")
        assert grader([("", response, "\n\u2028😀É\0")]) == [RIGHT]
