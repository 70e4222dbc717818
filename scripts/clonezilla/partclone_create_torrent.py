#!/usr/bin/env python3
"""Make a torrent from partclone's torrent.info: in the place of EZIO's script of this name.

`swarmdd make` makes it, and this adds who did; the info-hash is that of EZIO's script.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

sys.dont_write_bytecode = True

import bencode  # noqa: E402

AGENT = Path(__file__).resolve().parent / "agent/swarmdd"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-p", "--partition-name", required=True, metavar="NAME",
                        help="name in the torrent")
    parser.add_argument("-o", "--output-file", required=True, metavar="OUT",
                        help="the torrent file to write")
    parser.add_argument("-c", "--creator", required=True, help="who made it")
    parser.add_argument("-i", "--input-file", metavar="INFO",
                        help="partclone's torrent.info (default: standard input)")
    parser.add_argument("-t", "--tracker", metavar="URL")
    words = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        # `swarmdd make` knows the file by its name.
        info, made = Path(folder, "torrent.info"), Path(folder, "torrent")
        if words.input_file is None:
            info.write_bytes(sys.stdin.buffer.read())
        else:
            info.symlink_to(Path(words.input_file).absolute())
        command = [AGENT, "make", "--name", words.partition_name, "--output", made]
        if words.tracker is not None:
            command += ["--tracker", words.tracker]
        status = subprocess.run(command + [info], stdout=subprocess.DEVNULL, check=False).returncode
        if status != 0:
            return status
        members = bencode.members(made.read_bytes())
        members[b"created by"] = bencode.string(words.creator.encode())
        Path(words.output_file).write_bytes(bencode.joined(members))
    print(f"{words.output_file} created successfully")
    return 0


if __name__ == "__main__":
    sys.exit(main())
