"""libtorrent as a seeder or a leecher: ROLE TORRENT DIRECTORY PORT RATE PEER. Runs until it is ended.

RATE limits the upload in bytes per second (0: none). PEER is host:port, or empty when the tracker is to find it.
"""

import sys
import time

import libtorrent

role, torrent, directory, port, rate, peer = sys.argv[1:]
session = libtorrent.session({
    "listen_interfaces": f"127.0.0.1:{port}",
    "enable_dht": False, "enable_lsd": False, "enable_upnp": False, "enable_natpmp": False,
    "upload_rate_limit": int(rate),
    "allow_multiple_connections_per_ip": True,
    "alert_mask": libtorrent.alert.category_t.error_notification | libtorrent.alert.category_t.status_notification,
})
# Everybody into the global class (number 0): peers of the local network are outside its limits
# otherwise.
everybody = libtorrent.ip_filter()
everybody.add_rule("0.0.0.0", "255.255.255.255", 1 << 0)
session.set_peer_class_filter(everybody)
parameters = libtorrent.add_torrent_params()
parameters.ti = libtorrent.torrent_info(torrent)
parameters.save_path = directory
if role == "seed":
    parameters.flags |= libtorrent.torrent_flags.seed_mode
handle = session.add_torrent(parameters)
if peer:
    host, _, peer_port = peer.rpartition(":")
    handle.connect_peer((host, int(peer_port)))
while True:
    for alert in session.pop_alerts():
        print(alert, flush=True)
    status = handle.status()
    print(f"{status.state} {status.progress:.3f}", flush=True)
    time.sleep(0.2)
