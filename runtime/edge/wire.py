"""A client's socket: one system call for what can be read or written at once, and no turn of the loop for it.

trio's own stream takes a turn of the loop for each write, and tries to read before it waits, though between two
requests there is never anything to read yet.
"""

import socket

import trio

READ_BYTES = 64 * 1024


class Wire:
    """Bytes to and from one client. That he is gone is no error here: there is nothing more to read then."""

    def __init__(self, tcp: socket.socket) -> None:
        tcp.setblocking(False)
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        self.family = tcp.family
        self.client, self.server = tcp.getpeername(), tcp.getsockname()
        self._tcp = tcp
        self.closed = trio.Event()

    @property
    def is_open(self) -> bool:
        return not self.closed.is_set()

    async def read(self) -> bytes:
        """Wait for what comes next; nothing, once nothing will. Always takes a turn of the loop."""
        while self.is_open:
            try:
                await trio.lowlevel.wait_readable(self._tcp)
                return self._tcp.recv(READ_BYTES)
            except BlockingIOError:  # The kernel took it for readable, and had to throw it away.
                continue
            except (OSError, trio.ClosedResourceError):
                break
        return b""

    async def write(self, data: bytes, within_s: float) -> None:
        """Write all of it, waiting only where the kernel has no room; hang up on who does not take it in time."""
        try:
            sent = self._send(data)
            if sent < len(data):
                with trio.fail_after(within_s):
                    await self._write_on(memoryview(data)[sent:])
        except (OSError, trio.ClosedResourceError, trio.TooSlowError):
            self.close()

    async def _write_on(self, rest: memoryview) -> None:
        while rest:
            await trio.lowlevel.wait_writable(self._tcp)
            rest = rest[self._send(rest) :]

    def _send(self, data: bytes | memoryview) -> int:
        try:
            return self._tcp.send(data)
        except BlockingIOError:
            return 0

    def end_writing(self) -> None:
        """Tell the client that nothing follows; what he sends can still be read."""
        try:
            self._tcp.shutdown(socket.SHUT_WR)
        except OSError:
            return  # He has gone.

    def close(self) -> None:
        """Let go of the client. Whoever waits for him is woken."""
        if self.is_open:
            self.closed.set()
            trio.lowlevel.notify_closing(self._tcp)
            self._tcp.close()
