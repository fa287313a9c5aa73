"""Loss, bits per byte and accuracy of trained runs on any text, comparable across tokenizers."""

from typing import TYPE_CHECKING

from lmlab.lazy import lazy_exports

if TYPE_CHECKING:
    from lmlab.evaluation.estimate import Estimate
    from lmlab.evaluation.multiple_choice import ChoiceResult, answer_questions
    from lmlab.evaluation.questions import Question, read_questions
    from lmlab.evaluation.scorer import Scorer
    from lmlab.evaluation.text import TextResult, evaluate_text

__all__ = [
    "ChoiceResult",
    "Estimate",
    "Question",
    "Scorer",
    "TextResult",
    "answer_questions",
    "evaluate_text",
    "read_questions",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "estimate": ("Estimate",),
        "multiple_choice": ("ChoiceResult", "answer_questions"),
        "questions": ("Question", "read_questions"),
        "scorer": ("Scorer",),
        "text": ("TextResult", "evaluate_text"),
    },
)
