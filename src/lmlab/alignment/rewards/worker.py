"""A process that computes rewards: `python -m lmlab.alignment.rewards.worker NAME`.

It reads JSON lines `[prompt, response, truth]` and answers each with a line: the reward's three
numbers, or an error. What the reward prints goes to stderr.
"""

import json
import os
import sys
import threading
import time

from lmlab.alignment.rewards.registry import reward_function
from lmlab.alignment.rewards.reward import KEYS, checked


def main(name: str) -> None:
    """Answer requests until the input ends."""
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(values: object) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    try:
        function = reward_function(name)
    except Exception as error:
        answer({"error": str(error)})
        return
    answer({})
    for line in sys.stdin:
        try:
            reward = checked(function(*json.loads(line)))
        except Exception as error:  # whatever a function of the user's raises
            answer({"error": f"{type(error).__name__}: {error}"})
        else:
            answer({key: getattr(reward, key) for key in KEYS})


def _end_with(parent: int) -> None:
    """End this process when its parent is gone, also while a reward hangs."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1])
