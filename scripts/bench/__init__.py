"""The bench: how fast is the agent beside other ways to copy an image?

`scripts/bench/run --help` is the manual.

The modes are `pair` (one seeder, one leecher), `swarm` (n leechers behind shaped links; `leecher`,
`watch` and `plan` are its parts) and `disk` (reading one disk). They stand on `contenders` (what is
compared), `links` (namespaces and shaped links), `process` (running programs and what they cost),
`host` (the computer itself) and `image` (what is copied). `tables` and `trace` print and draw the
results. `clients`, `libtorrent_client` and `tracker` are also used by tests/loopback.
"""
