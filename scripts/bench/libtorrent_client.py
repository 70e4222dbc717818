"""One peer of libtorrent, tuned for a LAN: what scripts/bench starts to measure it. Runs until it is told to end."""

import argparse
from pathlib import Path

import libtorrent

MIB = 1 << 20


def run(arguments):
    session = libtorrent.session({
        "listen_interfaces": f"{arguments.address}:{arguments.port}", "user_agent": "bench",
        "enable_dht": False, "enable_lsd": False, "enable_upnp": False, "enable_natpmp": False,
        "enable_outgoing_utp": False, "enable_incoming_utp": False, "out_enc_policy": 2, "in_enc_policy": 2,
        "allow_multiple_connections_per_ip": True, "unchoke_slots_limit": -1, "connections_limit": 1000,
        "mixed_mode_algorithm": 0, "request_queue_time": 10, "max_out_request_queue": 5000,
        "max_allowed_in_request_queue": 10000, "max_queued_disk_bytes": 64 * MIB, "aio_threads": 2,
        "hashing_threads": 1, "send_buffer_low_watermark": MIB, "send_buffer_watermark": 3 * MIB,
        "send_buffer_watermark_factor": 200, "recv_socket_buffer_size": 2 * MIB, "send_socket_buffer_size": 2 * MIB,
        "alert_mask": libtorrent.alert.category_t.status_notification,
    })
    torrent = libtorrent.add_torrent_params()
    torrent.ti = libtorrent.torrent_info(str(arguments.torrent))
    torrent.save_path = str(arguments.directory)
    torrent.flags &= ~(libtorrent.torrent_flags.auto_managed | libtorrent.torrent_flags.paused)
    if arguments.seed:
        torrent.flags |= libtorrent.torrent_flags.seed_mode
    handle = session.add_torrent(torrent)
    if arguments.connect:
        handle.connect_peer((arguments.connect, arguments.port))
    while True:
        session.wait_for_alert(1000)
        for alert in session.pop_alerts():
            if isinstance(alert, libtorrent.torrent_finished_alert) and arguments.marker:
                arguments.marker.touch()


def parse():
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--address", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--torrent", type=Path, required=True)
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--seed", action="store_true")
    parser.add_argument("--connect")
    parser.add_argument("--marker", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    run(parse())
