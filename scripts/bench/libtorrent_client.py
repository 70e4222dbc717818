"""One peer of libtorrent, as a program: for the bench and for tests/loopback. Runs until ended.

usage: libtorrent_client.py --address ADDRESS --port PORT --torrent FILE --directory DIR [options]

  --seed                DIR holds the complete image
  --connect HOST:PORT   connect to this peer (default: peers come from the tracker)
  --tuned               for the fastest copy on a LAN: no uTP, no encryption, large queues,
                        unlimited slots (default: libtorrent's own settings)
  --upload-limit BYTES  send no more per second (default: 0, no limit; without --tuned only)
  --marker FILE         make this file when the image is complete
  --print               print alerts and, several times a second, state and progress
"""

import argparse
from pathlib import Path

import libtorrent

MIB = 1 << 20
TUNED = {
    "user_agent": "bench",
    "enable_outgoing_utp": False, "enable_incoming_utp": False,
    "out_enc_policy": 2, "in_enc_policy": 2,
    "unchoke_slots_limit": -1, "connections_limit": 1000, "mixed_mode_algorithm": 0,
    "request_queue_time": 10, "max_out_request_queue": 5000, "max_allowed_in_request_queue": 10000,
    "max_queued_disk_bytes": 64 * MIB, "aio_threads": 2, "hashing_threads": 1,
    "send_buffer_low_watermark": MIB, "send_buffer_watermark": 3 * MIB,
    "send_buffer_watermark_factor": 200,
    "recv_socket_buffer_size": 2 * MIB, "send_socket_buffer_size": 2 * MIB,
    "alert_mask": libtorrent.alert.category_t.status_notification,
}
STATUS_WAIT_MS, MARKER_WAIT_MS = 200, 1000


def main(arguments: argparse.Namespace) -> None:
    session = make_session(arguments)
    handle = session.add_torrent(parameters(arguments))
    if arguments.connect:
        host, _, port = arguments.connect.rpartition(":")
        handle.connect_peer((host, int(port)))
    while True:
        session.wait_for_alert(STATUS_WAIT_MS if arguments.print else MARKER_WAIT_MS)
        for alert in session.pop_alerts():
            if arguments.print:
                print(alert, flush=True)
            if arguments.marker and isinstance(alert, libtorrent.torrent_finished_alert):
                arguments.marker.touch()
        if arguments.print:
            status = handle.status()
            print(f"{status.state} {status.progress:.3f}", flush=True)


def make_session(arguments: argparse.Namespace):
    categories = libtorrent.alert.category_t
    session = libtorrent.session({
        "listen_interfaces": f"{arguments.address}:{arguments.port}",
        "enable_dht": False, "enable_lsd": False, "enable_upnp": False, "enable_natpmp": False,
        "allow_multiple_connections_per_ip": True,
        "upload_rate_limit": arguments.upload_limit,
        "alert_mask": categories.error_notification | categories.status_notification,
        **(TUNED if arguments.tuned else {}),
    })
    if not arguments.tuned:
        # All peers into the global class (number 0): the limits of a session do not bind peers of
        # the local network otherwise.
        everybody = libtorrent.ip_filter()
        everybody.add_rule("0.0.0.0", "255.255.255.255", 1 << 0)
        session.set_peer_class_filter(everybody)
    return session


def parameters(arguments: argparse.Namespace):
    torrent = libtorrent.add_torrent_params()
    torrent.ti = libtorrent.torrent_info(str(arguments.torrent))
    torrent.save_path = str(arguments.directory)
    if arguments.tuned:
        torrent.flags &= ~(
            libtorrent.torrent_flags.auto_managed | libtorrent.torrent_flags.paused
        )
    if arguments.seed:
        torrent.flags |= libtorrent.torrent_flags.seed_mode
    return torrent


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(usage=__doc__, add_help=False, allow_abbrev=False)
    parser.add_argument("--address", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--torrent", type=Path, required=True)
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--seed", action="store_true")
    parser.add_argument("--connect")
    parser.add_argument("--tuned", action="store_true")
    parser.add_argument("--upload-limit", type=int, default=0)
    parser.add_argument("--marker", type=Path)
    parser.add_argument("--print", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main(parse())
