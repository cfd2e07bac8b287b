"""The HTTP edge: the only door for customers and operators, behind which every value is valid.

```
 socket -> server -> connection -> (head) -> public | admin -> (headers, bodies) -> the desk
           cap, stop   whole requests          handlers          our own words
```

| module | what it holds |
|---|---|
| `server` | listens, bounds the connections, stops in order |
| `connection` | one client: hypercorn's HTTP/1.1 within limits |
| `wire`, `exchange` | its socket, and one request's way through the application |
| `head` | what a request's head is refused for |
| `public`, `admin` | the two applications |
| `faults` | what the second has in addition where FAULTS=on |
| `answers`, `problems` | JSON, and RFC 9457 problems for every error |
| `headers`, `bodies`, `strict_json`, `currencies` | what clients send, read strictly, every fault named |
| `usual_orders` | orders without a fault, read in one step |
| `schemas`, `openapi` | what the answers look like; /openapi.json |
| `limits` | all sizes and waits |
"""

from runtime.edge.admin import admin_app
from runtime.edge.limits import Limits
from runtime.edge.public import public_app
from runtime.edge.server import ListenError, serve

__all__ = ["Limits", "ListenError", "admin_app", "public_app", "serve"]
