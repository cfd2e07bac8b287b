"""The limit of the HTTP server: a route that reads the body and answers 202, on our edge and on hypercorn as it comes.

python -m runtime.bench.empty_route PORT edge|hypercorn
"""

import sys
from typing import Any

import hypercorn.trio
import trio
from hypercorn.config import Config

from runtime.collector import tune_collector
from runtime.edge import serve

ANSWER = b'{"order_id":"o","status":"pending"}'
HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(ANSWER))]


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while True:
            asked = (await receive())["type"]
            await send({"type": f"{asked}.complete"})
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 202, "headers": HEADERS})
    await send({"type": "http.response.body", "body": ANSWER})


async def serve_by_hypercorn(bind: str) -> None:
    config = Config()
    config.bind = [bind]
    config.accesslog = config.errorlog = None
    await hypercorn.trio.serve(app, config)


async def serve_by_edge(bind: str) -> None:
    await serve(app, bind)


SERVERS = {"edge": serve_by_edge, "hypercorn": serve_by_hypercorn}


def main(port: int, server: str) -> None:
    tune_collector()
    trio.run(SERVERS[server], f"127.0.0.1:{port}")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
