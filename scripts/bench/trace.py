"""Which machine waited for which?

Draws how busy each machine's link was over the time of a run, as an SVG.

One row for each machine: the seeder first, the others in the order in which they were complete.
What a machine sent goes up from the middle of its row, what it received goes down, each as a share
of R, the rate of one TCP stream through a link of this rate. The last row is the host that runs
all of them: while the host was busy or waited for its disk, so did every machine.
"""

from collections.abc import Callable
from xml.sax.saxutils import escape

from .common import Result
from .watch import Sample

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 1200, 90, 60, 56, 40
# Half a row, and the distance from one row to the next.
HALF, PITCH = 16, 37
# The share at the edge of a row.
HIGHEST = 1.15
SENT, RECEIVED, DONE, KILLED = "#d95f02", "#1b7db8", "#2a8a2a", "#c00000"
BUSY, DISK, LINE, TEXT = "#888888", "#7b3fa0", "#cccccc", "#333333"
AXIS_STEPS = (1, 2, 5, 10, 20, 60, 120, 300, 600, 1800, 3600)

Scale = Callable[[float], float]
Span = tuple[Sample, Sample]
Share = Callable[[Sample, Sample], float]


def draw(
    title: str, samples: list[Sample], result: Result, bytes_per_second: float,
    marks: list[tuple[str, float]],
) -> str:
    """`marks` are (name, seconds): a line over all rows."""
    end = max([samples[-1][0]] + [seconds for _, seconds in marks]) * 1.02
    completed = result["completed_seconds"]
    leechers = range(1, len(completed) + 1)
    order = [0] + sorted(leechers, key=lambda machine: completed[machine - 1] or 0)
    height = TOP + (len(order) + 1) * PITCH + BOTTOM
    spans = list(zip(samples, samples[1:]))

    def x(seconds: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * seconds / end

    shapes = [text(LEFT, 20, title, 15), legend()] + axis(end, x, height)
    for row, machine in enumerate(order):
        middle = TOP + row * PITCH + HALF
        for direction, colour in ((0, SENT), (1, RECEIVED)):
            share = use_of_link(machine, direction, bytes_per_second)
            shapes += curve(spans, share, x, middle, direction, colour)
        shapes.append(text(6, middle + 4, f"machine {machine}" if machine else "seeder", 12))
        if machine:
            shapes.append(ending(machine - 1, result, x, middle))
    middle = TOP + len(order) * PITCH + HALF
    shapes += curve(spans, host_busy, x, middle, 0, BUSY)
    shapes += curve(spans, disk_wait, x, middle, 1, DISK)
    shapes.append(text(6, middle + 4, "host", 12))
    for name, seconds in marks:
        shapes.append(line(x(seconds), TOP - 6, x(seconds), height - BOTTOM, TEXT, "4 3"))
        shapes.append(text(x(seconds) + 3, TOP - 8, name, 11))
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
            'font-family="sans-serif">\n'
            f'<rect width="{WIDTH}" height="{height}" fill="white"/>\n'
            + "\n".join(shapes) + "\n</svg>\n")


# ---- What is drawn


def use_of_link(machine: int, direction: int, bytes_per_second: float) -> Share:
    def share(before: Sample, after: Sample) -> float:
        moved = after[1][machine][direction] - before[1][machine][direction]
        return moved / max(1e-6, after[0] - before[0]) / bytes_per_second
    return share


def host_busy(before: Sample, after: Sample) -> float:
    return after[2].since(before[2]).busy_share()


def disk_wait(before: Sample, after: Sample) -> float:
    return after[2].since(before[2]).disk_wait_share(max(1e-6, after[0] - before[0]))


# ---- Shapes


def curve(
    spans: list[Span], share: Share, x: Scale, middle: float, direction: int, colour: str
) -> list[str]:
    """Half a row: a filled curve up (0) or down (1) from the middle, the line of 1, and the mean
    beside it."""
    first, last = spans[0][0], spans[-1][1]
    sign = (-1, 1)[direction]
    points = [f"{x(first[0]):.1f},{middle:.1f}"]
    for before, after in spans:
        # A queue that has been empty lets a burst through: more than R for a moment.
        y = middle + sign * HALF * min(HIGHEST, share(before, after)) / HIGHEST
        points += [f"{x(before[0]):.1f},{y:.1f}", f"{x(after[0]):.1f},{y:.1f}"]
    points.append(f"{x(last[0]):.1f},{middle:.1f}")
    full = middle + sign * HALF / HIGHEST
    arrow, y = (("↑", middle - 3), ("↓", middle + 11))[direction]
    return [
        f'<polygon points="{" ".join(points)}" fill="{colour}"/>',
        line(x(first[0]), full, x(last[0]), full, LINE),
        text(WIDTH - RIGHT + 6, y, f"{arrow} {share(first, last):.0%}", 11, colour),
    ]


def ending(index: int, result: Result, x: Scale, middle: float) -> str:
    seconds, colour = result["completed_seconds"][index], DONE
    if index in result["killed"]:
        seconds, colour = result["killed_seconds"], KILLED
    return (f'<rect x="{x(seconds) - 1:.1f}" y="{middle - HALF}" width="2.5" '
            f'height="{2 * HALF}" fill="{colour}"/>')


def axis(end: float, x: Scale, height: float) -> list[str]:
    step = next((step for step in AXIS_STEPS if end / step <= 20), AXIS_STEPS[-1])
    shapes = []
    for seconds in range(0, int(end) + 1, step):
        shapes.append(line(x(seconds), TOP - 2, x(seconds), height - BOTTOM, "#eeeeee"))
        shapes.append(text(x(seconds) - 4, height - BOTTOM + 16, f"{seconds} s", 11))
    return shapes


def legend() -> str:
    items = [
        (SENT, "sent (up)"), (RECEIVED, "received (down)"), (DONE, "complete"),
        (KILLED, "killed"), (BUSY, "host: cores busy"), (DISK, "host: waits for disk"),
    ]
    shapes = []
    for number, (colour, name) in enumerate(items):
        at = LEFT + 120 * number
        shapes.append(f'<rect x="{at}" y="29" width="10" height="10" fill="{colour}"/>')
        shapes.append(text(at + 14, 38, name, 11))
    note = "grey lines: R, or all; at the right the mean of the run"
    shapes.append(text(LEFT + 120 * len(items) + 20, 38, note, 11))
    return "\n".join(shapes)


def line(x1: float, y1: float, x2: float, y2: float, colour: str, dashes: str = "none") -> str:
    return (f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
            f'stroke-dasharray="{dashes}"/>')


def text(x: float, y: float, content: str, size: int, colour: str = TEXT) -> str:
    return (f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}">'
            f'{escape(content)}</text>')
