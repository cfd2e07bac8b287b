"""What the commands of `runtime.cli` do, each in a module of its own.

| module | what it does |
|---|---|
| `running` | runs a command: errors become one line and an exit code |
| `client` | asks a running instance over HTTP |
| `place` | places orders from a file |
| `placing` | ... several at a time, repeated until answered, counted |
| `show`, `tree`, `stock` | one order, the supervision tree, the stock: for people or as JSON |
| `fault` | failures on request: list, inject, clear |
| `export` | everything the broker has, as JSON lines |
| `audit` | holds the whole log against the invariants: for people, as JSON, as a picture |
| `bench` | measures, and shows figures as a table, as JSON or as a picture |
| `describe` | streams, subjects, messages, actors, variables, as JSON |
| `money` | amounts as people write them |

What was asked for goes to standard output, everything said about it to standard error.
"""
