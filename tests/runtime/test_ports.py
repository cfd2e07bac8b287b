"""Ports for servers that are about to be started."""

import socket

import pytest

from runtime import ports
from runtime.ports import free_port


def test_no_port_is_given_twice_though_nobody_uses_it_yet() -> None:
    assert len({free_port() for _ in range(2000)}) == 2000


def test_no_outgoing_connection_can_take_the_port() -> None:
    lowest_of_the_kernels = int(ports.EPHEMERAL.read_text().split()[0])
    assert all(ports.LOWEST <= free_port() < lowest_of_the_kernels for _ in range(500))


def test_a_port_that_is_taken_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    taken, free = free_port(), free_port()
    monkeypatch.setattr(ports, "_given", set())
    drawn = iter((taken, free))
    monkeypatch.setattr(ports._rng, "randint", lambda *_: next(drawn))
    with socket.create_server(("127.0.0.1", taken)):
        assert free_port() == free
