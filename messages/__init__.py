"""Messages: what is said, how it becomes bytes, and who hears it. Pure: no I/O, no clock, no broker.

| module | what it holds |
|---|---|
| `proto/` | the contracts, readable from any language |
| `generated/` | betterproto classes and descriptors made from them by `make proto`; never edited |
| `construct` | betterproto's constructors, made quick |
| `codec` | facts to bytes and back, strictly where the bytes are a stranger's |
| `wire` | the strict look at foreign bytes |
| `record` | the record, the envelope, the snapshot and their frame |
| `routing` | from a fact to the shards that hear it |

betterproto 1.2.5 is the newest stable release; 2.0 has stayed in beta since 2020 and builds and decodes three times
slower. Both decode too leniently to be trusted with money, which is why `codec` makes the bytes another way.
"""

import betterproto

from messages.construct import quicken
from messages.generated.orders import v1

quicken(
    kind
    for kind in vars(v1).values()
    if isinstance(kind, type) and issubclass(kind, betterproto.Message)
)
