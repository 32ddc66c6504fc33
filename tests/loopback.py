"""Ports on loopback for servers that tests start, each chosen by one process at a time.

A port that is free when it is chosen may be taken before the server is up, or while it is down
between a kill and the next start: by a server of tests that run beside these, which was given the
same, or by an outgoing connection. The first is met by a claim, the second by the range.
"""

import itertools
import random
import socket
from collections.abc import Sequence

# Below Linux's ephemeral range (32768 and up), from which outgoing connections take theirs.
PORTS = range(20000, 32000)

_claims: list[int] = []


def free_port() -> int:
    """Return a port that nothing listens on and no other caller was given."""
    return free_ports(["it"])["it"]


def free_ports(names: Sequence[str]) -> dict[str, int]:
    """Return a free port for each name, claimed until this process ends.

    Raises
    ------
    OSError
        If there are not so many.
    """
    ports = random.sample(PORTS, len(PORTS))
    free = (port for port in ports if _claim(port) and _is_free(port))
    chosen = list(itertools.islice(free, len(names)))
    if len(chosen) < len(names):
        raise OSError(f"no {len(names)} free ports in {PORTS.start} to {PORTS.stop - 1}")
    return dict(zip(names, chosen, strict=True))


def _claim(port: int) -> bool:
    # Linux's abstract sockets: a name that one process holds, gone with it however it ends.
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(f"\0pd-planner-tests-port-{port}")
    except OSError:
        claim.close()
        return False
    _claims.append(claim.detach())
    return True


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
