"""The runtime: all I/O, and the wiring. Read `system` first: it is one instance as a tree.

**An order's way in.** `edge` (HTTP) asks the `desk`, which puts an ask into the `mailbox` of the order's `shard`; or a
stranger publishes it, and the `tail` delivers it. The shard lets its actor react, appends one record to the `log`, and
only then answers, calls the `gateway`, arms `alarms` and shows `views`.

| part | modules |
|---|---|
| a shard | `shard`, its loop; `shards`, `mailbox`, `tail`, `addressing`, `past`, `alarms`, `clock` |
| what a shard knew | `recall`, `succession`, `strangers`, `archive`, `gaps` |
| what it set aside | `letters`, `dead_letters` |
| the log | `log` (the contract), `jetstream*`, `memory`, `bridge`, `link`, `footing`, `embedded` on `ports` |
| the outside | `gateway*`, `simulator*`, `edge/`, `desk`, `desk_types`, `ownership`, `views` |
| seeing | `logs`, `tracing*`, `metrics`, `vitals`; `audit/` |
| the process | `config*`, `instance`, `system`, `collector`, `cli*`, `commands/`, `reading` |
| trying it out | `demo*`, `bench/`, `retail/`, `order_files`, `faults/`, `testing`, `explore/` |
"""
