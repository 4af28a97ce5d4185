"""Two hosts and a server room on this machine: network namespaces, or this host's loopback.

With namespaces nothing of the real network is reached and nothing real reaches in: the servers
listen in a namespace of their own, and each host has a cable (a veth pair) to it that can be cut.
Where namespaces cannot be made (no root, no ``ip``), hosts are processes with names of their own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, field

HOSTS = ("alpha", "beta")
ROOM = "room"


def can_isolate() -> bool:
    """Whether namespaces with cables can be made here."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    probe = f"rt{os.getpid()}probe"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, check=False)
    if made.returncode != 0:
        return False
    _ip("netns", "delete", probe)
    return True


@dataclass
class Network:
    """The namespaces of one test, named after this process; ``close`` takes them away."""

    isolated: bool = field(default_factory=can_isolate)

    def __post_init__(self) -> None:
        if not self.isolated:
            return
        for name in (ROOM, *HOSTS):
            _ip("netns", "add", self._space(name))
            _ip("-n", self._space(name), "link", "set", "lo", "up")
        for number, host in enumerate(HOSTS, 1):
            near, far = f"r{os.getpid()}h{number}", f"r{os.getpid()}s{number}"
            _ip("link", "add", near, "netns", self._space(host), "type", "veth",
                "peer", "name", far, "netns", self._space(ROOM))  # fmt: skip
            for space, cable, last in ((host, near, 2), (ROOM, far, 1)):
                _ip("-n", self._space(space), "address", "add", f"10.77.{number}.{last}/24",
                    "dev", cable)  # fmt: skip
                _ip("-n", self._space(space), "link", "set", cable, "up")

    def command(self, where: str) -> list[str]:
        """What a command line has to begin with to run there."""
        return ["ip", "netns", "exec", self._space(where)] if self.isolated else []

    def server(self, host: str) -> str:
        """The server room's address as ``host`` sees it."""
        return f"10.77.{HOSTS.index(host) + 1}.1" if self.isolated else "127.0.0.1"

    @property
    def listen(self) -> str:
        """Where servers of the room listen: everywhere in their namespace, else on loopback."""
        return "0.0.0.0" if self.isolated else "127.0.0.1"

    def cut(self, host: str) -> None:
        """Pull the host's cable."""
        number = HOSTS.index(host) + 1
        _ip("-n", self._space(host), "link", "set", f"r{os.getpid()}h{number}", "down")

    def mend(self, host: str) -> None:
        """Plug it in again."""
        number = HOSTS.index(host) + 1
        _ip("-n", self._space(host), "link", "set", f"r{os.getpid()}h{number}", "up")

    def close(self) -> None:
        """Take the namespaces away; their cables go with them."""
        if self.isolated:
            for name in (ROOM, *HOSTS):
                _ip("netns", "delete", self._space(name))

    def _space(self, name: str) -> str:
        return f"rt{os.getpid()}{name}"


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
