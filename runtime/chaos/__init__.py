"""Campaigns: real processes under load, broken on purpose, healed, and audited. `orders chaos`.

| module | what it holds |
|---|---|
| `row`, `rows/` | what can be broken: the rows of the table of faults, a module for each family |
| `campaign` | one run of one row, from the first process to the verdict |
| `stage` | what a row is given: everything that runs, and the book of faults |
| `load`, `shopping` | the customers, and what they want |
| `brokers`, `instance`, `gateway` (`gateway_process`) | the processes |
| `process`, `host` | how a process is started, paused and killed, and where |
| `evidence`, `outcome` | the audit, and the line that sums it up |
"""
