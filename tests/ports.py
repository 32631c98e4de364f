"""A port for a server of the tests' own."""

import socket
from contextlib import suppress
from pathlib import Path
from random import SystemRandom

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port() -> int:
    """Below those that the system lends to connections, or one could take it while its server is away."""
    lent = int(_RANGE.read_text().split()[0]) if _RANGE.exists() else 32768
    while True:
        port = SystemRandom().randrange(10_000, max(lent, 20_000))
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
