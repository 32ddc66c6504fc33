"""A port that tests are given is theirs alone, also before and between their servers."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import loopback

ROOT = Path(__file__).parents[2]
# None of `loopback.PORTS`: tests that run beside these are given those.
FEW = range(19990, 19994)


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    claims: list[int] = []
    monkeypatch.setattr(loopback, "PORTS", FEW)
    monkeypatch.setattr(loopback, "_claims", claims)
    yield
    for claim in claims:
        os.close(claim)


def test_what_another_process_was_given_is_not_given_again():
    takes_two = (
        "from tests import loopback\n"
        f"loopback.PORTS = {FEW!r}\n"
        "print(*loopback.free_ports(['a', 'b']).values(), flush=True)\n"
        "input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", takes_two],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        theirs = set(map(int, other.stdout.readline().split()))
        ours = set(loopback.free_ports(["a", "b"]).values())
        assert (len(theirs), theirs | ours) == (2, set(FEW))
        with pytest.raises(OSError, match="no 1 free ports in 19990 to 19993"):
            loopback.free_port()
        other.communicate("\n")
    assert loopback.free_port() in theirs


def test_nobody_is_given_the_same_twice():
    assert {loopback.free_port() for _ in FEW} == set(FEW)
