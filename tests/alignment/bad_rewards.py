"""Rewards that fail; this module imports nothing heavy, since child processes import it."""

import time


def raising(prompt: str, response: str, truth: str) -> dict[str, float]:
    """Raise for every second prompt."""
    if int(prompt.partition("+")[0]) % 2:
        raise ValueError("no reward today")
    return {"format": 1.0, "answer": 0.0, "total": float(len(response))}


def not_finite(prompt: str, response: str, truth: str) -> dict[str, float]:
    """Return NaN for every second prompt."""
    total = float("nan") if int(prompt.partition("+")[0]) % 2 else float(len(response))
    return {"format": 1.0, "answer": 0.0, "total": total}


def hanging(prompt: str, response: str, truth: str) -> dict[str, float]:
    """Hang for one prompt in a hundred."""
    if prompt == "3+4=":
        time.sleep(600)
    return {"format": 1.0, "answer": 0.0, "total": float(len(response))}


def equal(prompt: str, response: str, truth: str) -> dict[str, float]:
    """Return the same for everything."""
    return {"format": 1.0, "answer": 0.0, "total": 0.5}
