"""Rewards of responses."""

import json
import math
import sys
from pathlib import Path

import pytest
import yaml

from lmlab.alignment.rewards import Grader, Reward, checked, kept_stops, reward_function
from lmlab.errors import UserError

RIGHT, WRONG, NO_FORMAT = Reward(1, 1, 1), Reward(1, 0, 0), Reward(0, 0, 0)


@pytest.mark.parametrize(
    ("response", "truth", "expected"),
    [
        ("46", "46", RIGHT),
        (" 046\n", "46", RIGHT),
        ("+0", "-0", RIGHT),
        ("-46", "46", WRONG),
        ("9" * 5000, "9" * 5000, RIGHT),  # more digits than int() takes
        ("46.", "46", NO_FORMAT),
        ("", "46", NO_FORMAT),
        ("12 34", "46", NO_FORMAT),
        ("٤٦", "46", NO_FORMAT),
    ],
)
def test_arithmetic(response: str, truth: str, expected: Reward) -> None:
    assert reward_function("arithmetic")("12+34=", response, truth) == expected


def test_a_function_by_its_dotted_path() -> None:
    assert reward_function("alignment.test_rewards.length")("", "abc", "") == {
        "format": 1,
        "answer": 0,
        "total": 3,
    }


def length(prompt: str, response: str, truth: str) -> dict[str, float]:
    return {"format": 1, "answer": 0, "total": len(response)}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("arithmetik", "unknown reward 'arithmetik'; known: arithmetic"),
        ("no.such", "reward 'no.such' cannot be imported: No module named 'no'"),
        ("math.nothing", "cannot be imported: module 'math' has no attribute 'nothing'"),
        ("math.pi", "reward 'math.pi' is no function of"),
    ],
)
def test_unknown_rewards_are_refused(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        reward_function(name)


def test_what_a_function_returns_is_checked() -> None:
    assert checked({"format": True, "answer": 0, "total": 0.5}) == Reward(1, 0, 0.5)
    with pytest.raises(ValueError, match="the reward's answer is nan, not a finite number"):
        checked(Reward(1, math.nan, 0))
    with pytest.raises(ValueError, match=r"keys format, answer, total, got 1\.0"):
        checked(1.0)
    with pytest.raises(ValueError, match="a reward has the keys"):
        checked({"total": 1.0})


@pytest.mark.parametrize(
    ("response", "truth", "expected"),
    [
        ("She has 2 + 3 = 5.\n#### 5", "2 + 3 = <<2+3=5>>5\n#### 5", RIGHT),
        ("#### 1,234.50", "1234.5", RIGHT),
        ("#### 1,234.", "#### 1,234", RIGHT),
        ("#### -3", "-3", RIGHT),
        ("#### 1\n#### 2", "1", RIGHT),  # the first one counts
        ("#### 5 apples", "5", RIGHT),
        ("#### 1 2", "12", WRONG),
        ("#### 1 2", "1", RIGHT),
        ("#### 12/4", "3", WRONG),
        ("#### $5", "5", NO_FORMAT),
        ("####5", "5", NO_FORMAT),
        ("#### ...", "5", NO_FORMAT),
        ("5", "5", NO_FORMAT),
        ("####", "5", NO_FORMAT),
        ("#### 6", "5", WRONG),
    ],
)
def test_gsm8k(response: str, truth: str, expected: Reward) -> None:
    assert reward_function("gsm8k")("", response, truth) == expected


def test_gsm8k_judges_as_the_evaluation_harness_does() -> None:
    harness = pytest.importorskip("lm_eval")
    from lm_eval.api.metrics import exact_match_hf_evaluate
    from lm_eval.filters.extraction import RegexFilter

    path = Path(harness.__file__).parent / "tasks" / "gsm8k" / "gsm8k.yaml"
    settings = yaml.safe_load(path.read_text())
    (metric,) = settings["metric_list"]
    (strict,) = (x for x in settings["filter_list"] if x["name"] == "strict-match")
    extract = RegexFilter(regex_pattern=strict["filter"][0]["regex_pattern"])
    endings = ["12", "1 2", "$12", "12.", "12 apples", "1,2", "1,200", "-12", "- 12", " 12", "x",
               "12/3", "12\n#### 13", "13\n#### 12", "12%", "", "...", "1.2.3"]  # fmt: skip
    for ending in endings:
        for truth in ("12", "1,200", "-12", "4", "13"):
            response = f"So it is.\n#### {ending}"
            found = extract.apply([[response]], [{}])[0][0]
            reference = exact_match_hf_evaluate(
                [found], [f"work\n#### {truth}"], regexes_to_ignore=metric["regexes_to_ignore"]
            )["exact_match"]
            assert reward_function("gsm8k")("", response, f"work\n#### {truth}").answer == reference


@pytest.mark.parametrize(
    ("response", "truth", "expected"),
    [
        ("</think> <answer>1 2</answer>", "12", WRONG),
        ("</think> <answer>1,2</answer>", "12", WRONG),
        ("</think> <answer>$ 1,200.0</answer>", "1200", RIGHT),
        ("</think> <answer>- 3 / 4</answer>", "-0.75", RIGHT),
        ("</think> <answer>1,2</answer>", "1, 2", RIGHT),
        ("I add.</think> <answer>4</answer>", "4", RIGHT),
        ("</think> <answer> 4.0 </answer>", "4", RIGHT),
        (r"</think> <answer>so \boxed{\frac{1}{2}}</answer>", r"\frac{1}{2}", RIGHT),
        ("</think> <answer>1/2</answer>", "0.5", RIGHT),
        ("</think> <answer>Paris.</answer>", "paris", RIGHT),
        ("</think> <answer>5</answer>", "4", WRONG),
        ("</think><answer>4</answer>", "4", NO_FORMAT),  # the space is part of the format
        ("</think> <answer>4", "4", NO_FORMAT),
        ("4", "4", NO_FORMAT),
    ],
)
def test_r1_zero(response: str, truth: str, expected: Reward) -> None:
    assert reward_function("r1_zero")("", response, truth) == expected


def test_the_end_of_the_format_is_kept_where_it_is_a_stop_text() -> None:
    assert kept_stops("r1_zero") == kept_stops("r1_zero:gsm8k") == ("</answer>",)
    assert kept_stops("gsm8k") == kept_stops("reasoning_gym:r1_zero") == ()


def test_r1_zero_wraps_other_rewards() -> None:
    reward = reward_function("r1_zero:countdown")
    truth = '{"numbers": [2, 3], "target": 6}'
    assert reward("", "</think> <answer>2*3</answer>", truth) == RIGHT
    assert reward("", "</think> <answer>2+3</answer>", truth) == WRONG
    assert reward("", "2*3", truth) == NO_FORMAT


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("(3+5)*2", RIGHT),
        (" 2 * (5 + 3) = 16\nso it is", RIGHT),
        ("3*5+2", WRONG),
        ("8*2", NO_FORMAT),  # a number that is not there
        ("(3+5)*2*2/2", NO_FORMAT),  # one used twice
        ("3+5", NO_FORMAT),  # one left out
        ("2/(3-3)+5", NO_FORMAT),
        ("3**5**2", NO_FORMAT),
        ("__import__('os')", NO_FORMAT),
        ("(" * 150, NO_FORMAT),
        ("9" * 1000, NO_FORMAT),
        ("", NO_FORMAT),
    ],
)
def test_countdown(response: str, expected: Reward) -> None:
    truth = '{"numbers": [2, 3, 5], "target": 16}'
    assert reward_function("countdown")("", response, truth) == expected


def test_reasoning_gym_scores_its_own_answers() -> None:
    gym = pytest.importorskip("reasoning_gym")
    reward = reward_function("reasoning_gym:chain_sum")
    for entry in gym.create_dataset("chain_sum", size=3, seed=0):
        truth = json.dumps(entry)
        assert reward(entry["question"], f" {entry['answer']}\n", truth) == RIGHT
        assert reward(entry["question"], "no", truth).answer < 1
        assert reward(entry["question"], "", truth) == NO_FORMAT
    with pytest.raises(UserError, match="reasoning-gym has no task 'chain_sums'"):
        reward_function("reasoning_gym:chain_sums")


def test_math_verify_compares_expressions() -> None:
    pytest.importorskip("math_verify")
    with Grader("math_verify", deadline=30) as grader:
        found = grader(
            [
                ("", r"so it is \boxed{\frac{2}{4}}", "1/2"),
                ("", r"$x^2 + 2x + 1$", "$(x+1)^2$"),
                ("", r"\boxed{3}", "1/2"),
                ("", "I do not know", "1/2"),
            ]
        )
        assert found == [RIGHT, RIGHT, WRONG, NO_FORMAT]
        assert not grader.failures


@pytest.mark.parametrize(
    ("name", "package"),
    [("reasoning_gym:chain_sum", "reasoning_gym"), ("math_verify", "math_verify")],
)
def test_a_missing_package_is_one_line(
    name: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=r"install it with pip install 'lmlab\[alignment\]'"):
        reward_function(name)
