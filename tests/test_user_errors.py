"""Errors of users: what other processes raise arrives whole."""

import pickle

from lmlab.errors import ConfigError, NotEnoughMemory


def test_config_errors_travel_between_processes() -> None:
    for error in (ConfigError("lr", "is 0"), NotEnoughMemory("model", "is too large")):
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert again.problem == error.problem
