"""What processes of a campaign are given."""

from runtime.chaos.process import free_port


def test_no_port_is_given_twice_though_nobody_uses_it_yet() -> None:
    assert len({free_port() for _ in range(2000)}) == 2000
