"""Machines with cables of their own to one server: Linux network namespaces, which only root may make."""

import os
import subprocess
from collections.abc import Sequence

_SERVER = 0


class Network:
    """A server and machines 1, 2, …; each machine has its own wire to the server."""

    def __init__(self, machines: int) -> None:
        self.machines = range(1, machines + 1)

    def create(self) -> None:
        """Raises OSError, subprocess.CalledProcessError where that is not possible here."""
        for place in (_SERVER, *self.machines):
            _ip("netns", "add", _name(place))
            _ip("-n", _name(place), "link", "set", "lo", "up")
        for machine in self.machines:
            ours, its = _name(machine), _name(_SERVER)
            wire = ("type", "veth", "peer", "name", f"to{machine}", "netns", its)
            _ip("-n", ours, "link", "add", "wire", *wire)
            _ip("-n", its, "address", "add", f"{self.server_address(machine)}/30", "dev", f"to{machine}")
            _ip("-n", ours, "address", "add", f"10.77.{machine}.2/30", "dev", "wire")
            _ip("-n", its, "link", "set", f"to{machine}", "up")
            _ip("-n", ours, "link", "set", "wire", "up")

    def remove(self) -> None:
        for place in (_SERVER, *self.machines):
            subprocess.run(["ip", "netns", "delete", _name(place)], capture_output=True)

    def server_address(self, machine: int) -> str:
        """As this machine knows it."""
        return f"10.77.{machine}.1"

    def on_server(self) -> Sequence[str]:
        """The words that run a command there."""
        return ("ip", "netns", "exec", _name(_SERVER))

    def on(self, machine: int) -> Sequence[str]:
        return ("ip", "netns", "exec", _name(machine))

    def cut(self, machine: int) -> None:
        """The machine itself sees no error: what it sends is answered by nobody."""
        _ip("-n", _name(_SERVER), "link", "set", f"to{machine}", "down")

    def mend(self, machine: int) -> None:
        _ip("-n", _name(_SERVER), "link", "set", f"to{machine}", "up")


def _name(place: int) -> str:
    return f"redline-{os.getpid()}-{place}"


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
