#!/usr/bin/python3
"""Seed partclone's slices as EZIO does: libtorrent with the settings of EZIO 2. Runs until ended.

usage: ezio_peer.py TORRENT FOLDER

The slices are in FOLDER/NAME/. EZIO sets no encryption, TCP only, and at most 6 connections and 5
uploads, as Clonezilla asks for; one connection for each address is libtorrent's own setting.
"""

import sys

import libtorrent

MIB = 1 << 20


def main(path: str, folder: str) -> None:
    session = libtorrent.session({
        "listen_interfaces": "0.0.0.0:6881",
        "enable_outgoing_utp": False, "enable_incoming_utp": False,
        "out_enc_policy": int(libtorrent.enc_policy.disabled),
        "in_enc_policy": int(libtorrent.enc_policy.disabled),
        "suggest_mode": 1,
        "send_not_sent_low_watermark": MIB // 2,
        "send_buffer_watermark": 128 * MIB, "send_buffer_low_watermark": 32 * MIB,
        "connections_limit": 1000, "unchoke_slots_limit": -1,
    })
    torrent = libtorrent.add_torrent_params()
    torrent.ti = libtorrent.torrent_info(path)
    torrent.save_path = folder
    torrent.max_connections, torrent.max_uploads = 6, 5
    torrent.flags |= libtorrent.torrent_flags.seed_mode
    torrent.flags &= ~(libtorrent.torrent_flags.auto_managed | libtorrent.torrent_flags.paused)
    handle = session.add_torrent(torrent)
    while True:
        session.wait_for_alert(1000)
        for alert in session.pop_alerts():
            print(alert, flush=True)
        print(handle.status().state, handle.status().num_peers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
