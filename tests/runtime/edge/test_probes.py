"""What a platform asks: alive, started, ready, connected."""

from typing import Any

import pytest

from runtime.desk_types import Health

WELL = Health(connected=True, ready=True, started=True)


@pytest.mark.parametrize(
    ("health", "failing"),
    [
        (WELL, set()),
        (Health(False, False, True, ("the broker is away",)), {"/health", "/readyz"}),
        (Health(True, False, True, ("order-3 restarts",)), {"/readyz"}),
        (Health(True, False, False), {"/readyz", "/startupz"}),
        (Health(False, False, False), {"/health", "/readyz", "/startupz"}),
    ],
)
async def test_each_probe_asks_its_own_question(
    client: Any, desk: Any, health: Health, failing: set[str]
) -> None:
    desk.state = health
    for path in ("/health", "/livez", "/readyz", "/startupz"):
        reply = await client.get(path)
        assert reply.status_code == (503 if path in failing else 200), path
        if path in failing:
            assert reply.headers["content-type"] == "application/problem+json"
            assert reply.json()["reasons"] == list(health.reasons) or not health.reasons
            assert reply.headers["retry-after"] == "1"


async def test_the_probes_answer_while_the_desk_does_not(client: Any, desk: Any) -> None:
    desk.stuck = desk.broken = True
    for path in ("/health", "/livez", "/readyz", "/startupz"):
        assert (await client.get(path)).status_code == 200
