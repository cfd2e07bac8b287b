"""The line to the payment provider: it stays, while the client behind it may be restarted.

Shards hold on to this one, so a client that fails costs them an unknown outcome at most, never a restart of their own.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from runtime.gateway import NoReplyError, Provider
from runtime.gateway_contract import Reply, Request


class Line:
    """A provider that leads to whichever client there is."""

    def __init__(self) -> None:
        self._client: Provider | None = None

    @contextmanager
    def leading_to(self, client: Provider) -> Iterator[None]:
        """Lead there for as long as this is open."""
        self._client = client
        try:
            yield
        finally:
            self._client = None

    async def send(self, request: Request) -> Reply:
        client = self._client
        if client is None:
            raise NoReplyError("the client of the payment provider is being restarted")
        try:
            return await client.send(request)
        except Exception as error:
            if self._client is client:
                raise
            raise NoReplyError("the client was restarted meanwhile") from error
