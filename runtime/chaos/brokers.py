"""The brokers of a campaign: one nats-server, or a cluster of three, each on a host and a disk of its own.

All of them sync every append. They advertise no addresses (`no_advertise`), so a client knows those that it was given
and no others, and whatever stands between cannot be walked round.
"""

import json
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from runtime.chaos.host import Host
from runtime.chaos.http import Http, NoAnswerError
from runtime.chaos.process import Process, wait_for
from runtime.embedded import server_path
from runtime.jetstream_streams import EVENTS
from runtime.ports import free_port

SYNC_ALWAYS = "always"


@dataclass(frozen=True, slots=True)
class Ground:
    """What one broker stands on."""

    host: Host
    store: Path


class Broker:
    """One nats-server. Its ports and its store outlive the process."""

    def __init__(self, name: str, ground: Ground, directory: Path, http: Http) -> None:
        self.name, self.host, self.store = name, ground.host, ground.store
        self.port, self.route_port, self.monitor_port = free_port(), free_port(), free_port()
        self.config_file = directory / f"{name}.conf"
        self.log_file = directory / f"{name}.log"
        self.process = Process(
            [server_path(), "-c", str(self.config_file)], log_file=self.log_file, host=self.host
        )
        self._http = http

    @property
    def url(self) -> str:
        return f"nats://{self.host.address}:{self.port}"

    @property
    def running(self) -> bool:
        return self.process.running

    def start(self) -> None:
        self.process.start()

    async def kill(self) -> None:
        await self.process.kill()

    def pause(self) -> None:
        self.process.pause()

    def resume(self) -> None:
        self.process.resume()

    async def stop(self) -> int:
        """End it in order; returns its exit code."""
        return await self.process.stop()

    def lame_duck(self) -> None:
        """Let it send its clients away one by one, and end."""
        self.process.signal(signal.SIGUSR2)

    def reload(self) -> None:
        self.process.signal(signal.SIGHUP)

    async def ask(self, path: str) -> Any:
        """What its monitor says at `path`; None where it does not answer."""
        if not self.running:
            return None
        try:
            answer = await self._http.ask(
                "GET", f"{self.host.address}:{self.monitor_port}", path, within_s=1.0
            )
        except NoAnswerError:
            return None
        return answer.json if answer.status == 200 else None

    def configure(self, others: Sequence["Broker"], sync_interval: str) -> None:
        """Write its configuration."""
        address = self.host.address
        text = f"""server_name: {self.name}
listen: "{address}:{self.port}"
http: "{address}:{self.monitor_port}"
max_payload: 8MB
jetstream {{
  store_dir: {json.dumps(str(self.store))}
  sync_interval: {sync_interval}
}}
"""
        if others:
            routes = ", ".join(f'"nats://{o.host.address}:{o.route_port}"' for o in others)
            text += f"""cluster {{
  name: orders
  listen: "{address}:{self.route_port}"
  no_advertise: true
  routes: [{routes}]
}}
"""
        self.config_file.write_text(text)


class Brokers:
    """All of them. Iterates over the brokers in the order of their names."""

    def __init__(
        self,
        grounds: Sequence[Ground],
        directory: Path,
        http: Http,
        *,
        sync_interval: str = SYNC_ALWAYS,
    ) -> None:
        self.all = tuple(
            Broker(f"broker-{number}", ground, directory, http)
            for number, ground in enumerate(grounds, 1)
        )
        for broker in self.all:
            others = [other for other in self.all if other is not broker]
            broker.configure(others, sync_interval)

    @property
    def replicas(self) -> int:
        return len(self.all)

    @property
    def quorum(self) -> int:
        return len(self.all) // 2 + 1

    @property
    def urls(self) -> list[str]:
        return [broker.url for broker in self.all]

    def start(self) -> None:
        """Start those that do not run."""
        for broker in self.all:
            if not broker.running:
                broker.start()

    async def kill(self) -> None:
        for broker in self.all:
            await broker.kill()

    async def heal(self) -> None:
        """Let all of them run again, and wait until they serve."""
        for broker in self.all:
            broker.resume()
        self.start()
        await self.wait_serving()

    async def wait_serving(self, within_s: float = 60.0) -> None:
        """Wait until every broker is well and, in a cluster, they have a leader.

        Raises:
            trio.TooSlowError: they are not.
        """
        with trio.fail_after(within_s):
            await wait_for(self.is_serving)

    async def is_serving(self) -> bool:
        for broker in self.all:
            if await broker.ask("/healthz") is None:
                return False
        return self.replicas == 1 or await self.meta_leader() is not None

    async def leader(self, stream: str = EVENTS) -> Broker | None:
        """Who leads a stream, if anyone is known to."""
        if self.replicas == 1:
            return self.all[0]
        for broker in self.all:
            told = await broker.ask("/jsz?accounts=true&streams=true")
            for account in (told or {}).get("account_details", ()):
                for detail in account.get("stream_detail") or ():
                    name = (detail.get("cluster") or {}).get("leader")
                    if detail["name"] == stream and name:
                        return self._named(name)
        return None

    async def followers(self, stream: str = EVENTS) -> list[Broker]:
        leader = await self.leader(stream)
        return [broker for broker in self.all if broker is not leader]

    async def meta_leader(self) -> Broker | None:
        """Who decides where streams are."""
        for broker in self.all:
            told = await broker.ask("/jsz")
            name = ((told or {}).get("meta_cluster") or {}).get("leader")
            if name:
                return self._named(name)
        return None

    async def wait_leader(self, within_s: float = 60.0) -> Broker:
        """Wait until somebody leads the stream of orders.

        Raises:
            trio.TooSlowError: nobody does.
        """
        with trio.fail_after(within_s):
            while True:
                leader = await self.leader()
                if leader is not None and leader.running:
                    return leader
                await trio.sleep(0.05)

    def _named(self, name: str) -> Broker | None:
        return next((broker for broker in self.all if broker.name == name), None)
