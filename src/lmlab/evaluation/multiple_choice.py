"""Multiple choice by the log-likelihood of each choice."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from lmlab.errors import DataError, UserError
from lmlab.evaluation.estimate import Estimate, ratio
from lmlab.evaluation.pairs import encode_pair, move_white_space, pair_request
from lmlab.evaluation.questions import Question
from lmlab.evaluation.scorer import Request, Scorer

SCORINGS = ("sum", "per_token", "per_byte", "unconditional")
"""How choices are compared: by log p(choice | context), by that divided by the tokens or by the
bytes of the choice, or by log p(choice | context) - log p(choice) (Brown et al. 2020)."""


@dataclass(frozen=True, eq=False)
class ChoiceResult:
    """A model's answers to questions."""

    scores: tuple[Float[np.ndarray, "scorings choices"], ...]
    """The score of each choice by each of `SCORINGS`, question by question."""
    correct: Bool[np.ndarray, "scorings questions"]
    """Whether the best choice, of equal ones the first, is the answer."""
    chance: float
    """Expected accuracy of guessing."""
    cropped: int
    """Questions whose context was cropped from the left."""

    def accuracy(self, scoring: str) -> Estimate:
        """Return the share of correct answers by one of `SCORINGS`."""
        row = self.correct[SCORINGS.index(scoring)].astype(float)
        return ratio(row, np.ones(len(row)))

    def minus(self, other: "ChoiceResult", scoring: str) -> Estimate:
        """Return the difference in accuracy on the same questions, with a paired error."""
        row = SCORINGS.index(scoring)
        difference = self.correct[row].astype(float) - other.correct[row]
        return ratio(difference, np.ones(len(difference)))


def answer_questions(
    scorer: Scorer,
    questions: Sequence[Question],
    *,
    advance: Callable[[int], object] = lambda _: None,
) -> ChoiceResult:
    """Return how often the likeliest choice is the answer, by each of `SCORINGS`.

    A choice follows its context after one space, unless either has white space there. Without a
    context it follows <|endoftext|>, and so it does for log p(choice), as in `acc_mutual_info` of
    lm-evaluation-harness. Bytes count the choice without that space. `advance` is called with the
    number of questions that are done. Raises UserError for a choice longer than the context length.
    """
    if not questions:
        raise DataError("there is no question; give some")
    cropped: set[int] = set()

    def requests() -> Iterator[Request]:
        for index, question in enumerate(questions):
            for choice in question.choices:
                continuation = _continuation(question.context, choice)
                alone = move_white_space(question.context, continuation)[1]
                for context, text in ((question.context, continuation), ("", alone)):
                    pair = encode_pair(scorer.tokenizer, context, text)
                    try:
                        request, was_cropped = pair_request(scorer, pair, index)
                    except UserError as error:
                        raise UserError(f"{question.source}: {error}") from None
                    if was_cropped:
                        cropped.add(index)
                    yield request

    values: list[list[tuple[float, int]]] = [[] for _ in questions]
    for scored in scorer.score(requests()):
        found = values[scored.request.owner]
        found.append((float(scored.log_probs.sum()), scored.request.scored))
        if len(found) == 2 * len(questions[scored.request.owner].choices):
            advance(1)
    scores = tuple(_scores(q, pairs) for q, pairs in zip(questions, values, strict=True))
    answers = np.array([question.answer for question in questions])
    best = np.array([score.argmax(axis=1) for score in scores]).T
    chance = float(np.mean([1 / len(question.choices) for question in questions]))
    return ChoiceResult(scores, best == answers, chance, len(cropped))


def _continuation(context: str, choice: str) -> str:
    apart = not context or context[-1].isspace() or choice[0].isspace()
    return choice if apart else f" {choice}"


def _scores(
    question: Question, values: list[tuple[float, int]]
) -> Float[np.ndarray, "scorings choices"]:
    """Return the rows of `SCORINGS`; `values` alternates choice after context, choice alone."""
    sums, tokens = np.array(values[::2]).T
    alone = np.array([value for value, _ in values[1::2]])
    sizes = np.array([len(choice.encode()) for choice in question.choices])
    return np.stack([sums, sums / tokens, sums / sizes, sums - alone])
