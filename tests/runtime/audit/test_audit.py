"""The auditor passes what the real actors did, and each invariant turns red when one thing is made wrong."""

from typing import Any


async def test_what_the_actors_did_passes(evidence: Any) -> None:
    report = evidence.audit()
    assert report.findings == ()
    print(report)
