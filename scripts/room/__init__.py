"""The server side of a room: what scripts/serve and scripts/status are made of.

The log of what machines said is the state (log.py). Everything shown or decided is computed from
it, so a `serve` that was killed and starts again knows everything.

Words: a *job* is one `serve`: images, targets, and who is expected. A *machine* is one computer of
the room, known by its MAC address. The *roster* is the list of all machines that are expected or
were seen. A *component* is one of the daemons that `serve` starts.

| question | file |
| --- | --- |
| What is asked for, and is it possible? | job.py, options.py, jobfile.py |
| What did machines say? | log.py |
| Where does each machine stand? | roster.py |
| What does a machine boot? | boot.py |
| How are nginx, opentracker, dnsmasq and the seed started, watched, ended? | components.py |
| Where do files lie, and is this folder ours? | state.py |
| What is on the terminal? | table.py |
| What is on the page? | page.py, page/ |
| How did it end? | results.py |
| How is a machine switched on from here? | wake.py |
| In which order does it all happen? | serving.py |
"""
