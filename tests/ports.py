"""Ports for what must know its port before it opens it."""

import random
import socket


def free_ports(count: int) -> list[int]:
    """Return ports below those that the system gives to connections, so that they stay free."""
    return [port for port in random.sample(range(20000, 32000), 100) if _is_free(port)][:count]


def _is_free(port: int) -> bool:
    with socket.socket() as one:
        try:
            one.bind(("", port))
        except OSError:
            return False
    return True
