"""The limit of the HTTP server: hypercorn as it comes, with a route that reads the body and answers 202.

python -m runtime.bench.empty_route PORT
"""

import sys
from typing import Any

import hypercorn.trio
import trio
from hypercorn.config import Config

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


def main(port: int) -> None:
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.accesslog = config.errorlog = None
    trio.run(hypercorn.trio.serve, app, config)


if __name__ == "__main__":
    main(int(sys.argv[1]))
