"""Who writes the views, on a real server: a claim of our own that comes late is no other instance."""

from typing import Any

import pytest
import trio

from runtime.bridge import Address, Bridge
from runtime.jetstream import CLAIM, JetStreamLog, Layout
from runtime.log import FencedError

LAYOUT = Layout(retention_s=60.0, replicas=1, shards={"order": 1})


@pytest.fixture
async def bridge(own_nats_server: Any, nursery: trio.Nursery) -> Bridge:
    bridge = Bridge(Address([own_nats_server.url]))
    await nursery.start(bridge.run)
    await bridge.wait_connected()
    return bridge


@pytest.mark.parametrize("late", ["ours", "another's"])
async def test_a_claim_that_arrives_while_ours_is_renewed_is_looked_at(
    bridge: Bridge, monkeypatch: pytest.MonkeyPatch, late: str
) -> None:
    log = JetStreamLog(bridge)
    await log.prepare(LAYOUT)
    await log.claim_views()
    newest = log._api.newest

    async def newest_then_late_claim(*where: str) -> Any:
        found = await newest(*where)
        assert found is not None
        monkeypatch.setattr(log._api, "newest", newest)
        claim = found.payload if late == "ours" else b"somebody else"
        await log._api.publish(CLAIM, claim, {})
        return found

    monkeypatch.setattr(log._api, "newest", newest_then_late_claim)
    if late == "ours":
        await log.claim_views()
        await log.put_views({"o1": b"{}"})
    else:
        with pytest.raises(FencedError, match="another client"):
            await log.claim_views()
