"""What is kept of a rollout for people to read."""

from typing import Any

from lmlab.alignment.accuracy import format_answer_counts
from lmlab.alignment.collecting import Rollout
from lmlab.alignment.experience import Experience
from lmlab.tokenizer import Tokenizer


def rollout_record(
    step: int, rollout: Rollout, trajectories: Experience, tokenizer: Tokenizer, groups: int
) -> dict[str, Any]:
    """Return a measured rollout as JSON: counts and means, and the text of `groups` prompts.

    `counts` maps whether format and answer are right, "1,0" for instance, to a number of responses.
    Each response has the text, advantage and entropy of each of its tokens.
    """
    size, group_size = len(rollout.responses), rollout.group_size
    return {
        "step": step,
        "rollout": rollout.number,
        "responses": size,
        "reward": sum(reward.total for reward in rollout.rewards) / size,
        "answer": sum(reward.answer for reward in rollout.rewards) / size,
        "length": sum(len(response.tokens) for response in rollout.responses) / size,
        "complete": sum(response.complete for response in rollout.responses) / size,
        "counts": format_answer_counts(rollout.rewards),
        "groups": [
            {
                "prompt": rollout.problems[first].prompt,
                "truth": rollout.problems[first].truth,
                "responses": [
                    _response(row, rollout, trajectories, tokenizer)
                    for row in range(first, first + group_size)
                ],
            }
            for first in range(0, min(groups * group_size, size), group_size)
        ],
    }


def _response(
    row: int, rollout: Rollout, trajectories: Experience, tokenizer: Tokenizer
) -> dict[str, Any]:
    reward, mask = rollout.rewards[row], trajectories.mask[row]
    assert rollout.entropy is not None
    return {
        "reward": reward.total,
        "format": reward.format,
        "answer": reward.answer,
        "complete": rollout.responses[row].complete,
        "tokens": [
            tokenizer.vocab[token].decode("utf-8", "replace")
            for token in rollout.responses[row].tokens
        ],
        "advantage": _rounded(trajectories.advantages[row][mask].tolist()),
        "entropy": _rounded(rollout.entropy[row][mask].tolist()),
    }


def _rounded(values: list[float]) -> list[float]:
    return [round(value, 4) for value in values]
