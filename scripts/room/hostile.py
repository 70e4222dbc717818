"""What of a value that came from the network may be used?"""
import functools
import re
import unicodedata
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from .job import parse_mac
from .log import parse_object

# An agent's last report has less than 4 KiB.
BODY_CHARS_MAX = 16 << 10
TEXT_CHARS_MAX = 1000
SHORT_CHARS_MAX = 100
# Larger numbers are in no machine.
NUMBER_MAX = 10**18


def read_report(body: object) -> dict[str, Any] | None:
    if not isinstance(body, str) or len(body) > BODY_CHARS_MAX:
        return None
    return parse_object(body)


# A machine repeats its query in each report.
@functools.lru_cache(maxsize=8192)
def read_query_text(query: str) -> tuple[str, str | None]:
    values = {}
    for pair in query.split("&"):
        key, _, value = pair.partition("=")
        values[key] = unquote(value)
    return values.get("job", ""), parse_mac(values.get("mac", ""))


def read_query(query: object) -> tuple[str, str | None]:
    """The job and the MAC address that a request names, if it does."""
    if not isinstance(query, str) or not query:
        return "", None
    # None of our jobs has a name of this kind.
    return read_query_text(query) if len(query) <= TEXT_CHARS_MAX else ("too long", None)


def mac_of_path(path: object) -> str | None:
    """/boot/52-54-00-77-00-01"""
    if not isinstance(path, str) or len(path) > TEXT_CHARS_MAX:
        return None
    return parse_mac(path.partition("?")[0].rpartition("/")[2])


def mac_of_member(report: Mapping[str, Any]) -> str | None:
    mac = report.get("mac")
    return parse_mac(mac) if isinstance(mac, str) else None


def number(value: object) -> float:
    """A JSON number; 0 if it is missing, has another type, or is none that a machine sends."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return 0
    # False for NaN, too.
    return value if 0 <= value <= NUMBER_MAX else 0


def whole(value: object) -> int:
    return int(number(value))


def text(value: object, most: int = TEXT_CHARS_MAX) -> str:
    """A JSON string as a part of one line."""
    return clean(value, most) if isinstance(value, str) and value else ""


# Letters that are drawn over the one before. A hundred of them on one letter cover other lines.
MARKS = ("Mn", "Me")


def clean(value: str, most: int) -> str:
    """On a terminal a control character is a command, and a sign for the direction of writing turns
    the rest of the line around. Python calls none of them printable."""
    value = value[:4 * most]
    if not (value.isascii() and value.isprintable()):
        letters = unicodedata.normalize("NFC", value)
        value = "".join(letter if letter.isprintable() else " " for letter in letters
                        if unicodedata.category(letter) not in MARKS)
        value = re.sub(" +", " ", value)
    return value.strip()[:most]
