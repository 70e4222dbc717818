"""The server side of a room: what scripts/serve and scripts/status are made of.

The log of what machines said is the state (log.py). Everything shown or decided is computed from
it, so a `serve` that was killed and starts again knows everything.

Words: a *job* is one `serve`: images, targets, and who is expected. A *machine* is one computer of
the room, known by its MAC address. The *roster* is the list of all machines that are expected or
were seen. A *component* is one of the daemons that `serve` starts.

| question | file |
| --- | --- |
| In which order does it all happen? | serving.py |
| What is asked for? | job.py, options.py, jobfile.py |
| Is it possible here? | checks.py, ports.py |
| What is in a Clonezilla image directory? | shelf.py |
| How is it unpacked, and where does it lie then? | unshelve.py, shelf_unpack.py, shelf_cache.py |
| What becomes of one in a job? | shelving.py |
| How is an image packed for the seed? | pack.py, packing.py |
| What torrent describes each image? | torrents.py |
| Which bytes of an image do its file systems use? | used_map.py |
| What did machines say? | log.py, words.py |
| What has happened in a job so far? | past.py |
| Where do all machines stand? | roster.py |
| Who may speak for a MAC address? | claims.py, neighbours.py |
| Where does one machine stand? | machine.py, hostile.py |
| What is shown of it, and what is strange about it? | row.py, flags.py |
| What does a machine boot? | boot.py, dhcp.py |
| Who is to be imaged again, or switched on? | again.py, wake.py |
| How are the components started, watched, ended? | components.py |
| Where do files lie, and is this folder ours? | state.py |
| What do signals and keys ask for? | signals.py |
| What is on the terminal? | table.py, output.py |
| What is on the page? | page.py, page/ |
| How does somebody else look at it? | looking.py |
| How did it end? | results.py |
"""
