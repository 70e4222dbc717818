"""What are the members of a torrent file, as they are written?

Nothing is decoded: a torrent of a big image has a million small strings.
"""

import hashlib


class Malformed(Exception):
    """The text says where."""


def members(data: bytes) -> dict[bytes, bytes]:
    """The members of the dictionary that `data` is, each value still encoded."""
    if data[:1] != b"d":
        raise Malformed("no torrent file: it does not begin with a dictionary")
    found: dict[bytes, bytes] = {}
    place = 1
    while data[place:place + 1] != b"e":
        begin, end = string_at(data, place)
        place = end_of(data, end)
        found[data[begin:end]] = data[end:place]
    return found


def joined(found: dict[bytes, bytes]) -> bytes:
    """The dictionary of these members: the inverse of `members`."""
    return b"d" + b"".join(string(key) + found[key] for key in sorted(found)) + b"e"


def string(text: bytes) -> bytes:
    return b"%d:%s" % (len(text), text)


def number(value: int) -> bytes:
    return b"i%de" % value


def info_hash(data: bytes) -> bytes:
    found = members(data)
    if b"info" not in found:
        raise Malformed("no torrent file: it has no member info")
    return hashlib.sha1(found[b"info"]).digest()


def end_of(data: bytes, place: int) -> int:
    """Where the value that begins at `place` ends."""
    depth = 0
    while True:
        kind = data[place:place + 1]
        if kind in (b"d", b"l"):
            depth, place = depth + 1, place + 1
        elif kind == b"e" and depth:
            depth, place = depth - 1, place + 1
        elif kind == b"i":
            place = found_at(data, b"e", place) + 1
        else:
            place = string_at(data, place)[1]
        if depth == 0:
            return place


def string_at(data: bytes, place: int) -> tuple[int, int]:
    """The begin and the end of the text of the string that begins at `place`."""
    colon = found_at(data, b":", place)
    digits = data[place:colon]
    if not digits.isdigit() or colon + 1 + int(digits) > len(data):
        raise Malformed(f"no torrent file: byte {place} begins no value")
    return colon + 1, colon + 1 + int(digits)


def found_at(data: bytes, letter: bytes, place: int) -> int:
    """No number and no length has more than 20 digits."""
    found = data.find(letter, place, place + 22)
    if found < 0:
        raise Malformed(f"no torrent file: byte {place} begins no value")
    return found
