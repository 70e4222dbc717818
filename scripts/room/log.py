"""The log: an append-only file with one JSON object a line, written by nginx and by `serve`.

Each line is one of these. `time` is in seconds since 1970, by the server's clock.

{"time", "kind": "report", "address", "query", "body"}   a machine reported (POST /report?QUERY)
{"time", "kind": "boot", "address", "path", "query"}     iPXE asked what to boot (GET /boot/MAC)
{"time", "kind": "disk", "address", "path"}              and got its own disk's starter (/disk/MAC)
{"time", "kind": "retry", "address", "path"}             a failed machine asked whether to try again
{"time", "kind": "words", "address", "query", "file"}    a failed machine sent its log
{"time", "kind": "job", "job", "images": [{"name", "bytes", "info_hash", "target"}]}
                                                         `serve` started with this job
{"time", "kind": "neighbour", "address", "mac"}          this address has this MAC, says the kernel
{"time", "kind": "again", "job", "machine"}              somebody asked to image a machine again
{"time", "kind": "component", "name", "event", "words"}  a daemon ended or was started again
{"time", "kind": "end", "job", "why"}                    the job has ended

nginx writes what comes from the network: everything in it but `time`, `kind` and `address` is
hostile. Both writers append one whole line with one write(2).
"""

from typing import Any

Entry = dict[str, Any]
