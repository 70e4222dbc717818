"""Who waited for whom? Draws how busy each machine's link was over the time of a run, as an SVG.

One row for each machine, the seeder first, the others in the order in which they were complete: what it sent upwards
from the middle of the row, what it received downwards, each as a share of R, what one TCP stream gets through such a
link. The last row is the host that all of them run on: where it was busy or waited for its disk, so did everybody.
"""

from xml.sax.saxutils import escape

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 1200, 90, 60, 56, 40
# Half a row, and from one row to the next.
HALF, PITCH = 16, 37
# The share at the edge of a row.
HIGHEST = 1.15
SENT, RECEIVED, DONE, KILLED, LINE, TEXT = "#d95f02", "#1b7db8", "#2a8a2a", "#c00000", "#cccccc", "#333333"
BUSY, DISK = "#888888", "#7b3fa0"


def draw(title, samples, result, bytes_per_second, marks):
    """`samples`: (seconds, [(bytes sent, received) of each machine], HostTime); `marks`: (name, seconds) over all rows."""
    end = max([samples[-1][0]] + [seconds for _, seconds in marks]) * 1.02
    completed = result["completed_seconds"]
    order = [0] + sorted(range(1, len(completed) + 1), key=lambda machine: completed[machine - 1] or 0)
    height = TOP + (len(order) + 1) * PITCH + BOTTOM
    spans = list(zip(samples, samples[1:]))

    def x(seconds):
        return LEFT + (WIDTH - LEFT - RIGHT) * seconds / end

    shapes = [text(LEFT, 20, title, 15), legend()] + axis(end, x, height)
    for row, machine in enumerate(order):
        middle = TOP + row * PITCH + HALF
        for direction, colour in ((0, SENT), (1, RECEIVED)):
            shapes += curve(spans, use_of_link(machine, direction, bytes_per_second), x, middle, direction, colour)
        shapes.append(text(6, middle + 4, "seeder" if machine == 0 else f"machine {machine}", 12))
        if machine:
            shapes += ending(machine - 1, result, x, middle)
    middle = TOP + len(order) * PITCH + HALF
    shapes += curve(spans, lambda before, after: after[2].since(before[2]).busy_share(), x, middle, 0, BUSY)
    shapes += curve(spans, disk_wait, x, middle, 1, DISK)
    shapes.append(text(6, middle + 4, "host", 12))
    for name, seconds in marks:
        shapes.append(line(x(seconds), TOP - 6, x(seconds), height - BOTTOM, TEXT, "4 3"))
        shapes.append(text(x(seconds) + 3, TOP - 8, name, 11))
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="sans-serif">\n'
            f'<rect width="{WIDTH}" height="{height}" fill="white"/>\n' + "\n".join(shapes) + "\n</svg>\n")


def use_of_link(machine, direction, bytes_per_second):
    def share(before, after):
        moved = after[1][machine][direction] - before[1][machine][direction]
        return moved / max(1e-6, after[0] - before[0]) / bytes_per_second
    return share


def disk_wait(before, after):
    return after[2].since(before[2]).disk_wait_share(max(1e-6, after[0] - before[0]))


def curve(spans, share, x, middle, direction, colour):
    """Half a row: a filled curve up (0) or down (1) from the middle, the line of 1, and the mean beside it."""
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


def ending(index, result, x, middle):
    seconds, colour = result["completed_seconds"][index], DONE
    if index in result["killed"]:
        seconds, colour = result["killed_seconds"], KILLED
    at = x(seconds)
    return [f'<rect x="{at - 1:.1f}" y="{middle - HALF}" width="2.5" height="{2 * HALF}" fill="{colour}"/>']


def axis(end, x, height):
    step = next(step for step in (1, 2, 5, 10, 20, 60, 120, 300, 600, 1800, 3600) if end / step <= 20 or step == 3600)
    shapes = []
    for seconds in range(0, int(end) + 1, step):
        shapes.append(line(x(seconds), TOP - 2, x(seconds), height - BOTTOM, "#eeeeee"))
        shapes.append(text(x(seconds) - 4, height - BOTTOM + 16, f"{seconds} s", 11))
    return shapes


def legend():
    items = [(SENT, "sent (up)"), (RECEIVED, "received (down)"), (DONE, "complete"), (KILLED, "killed"),
             (BUSY, "host: cores busy"), (DISK, "host: waits for disk")]
    shapes = []
    for number, (colour, name) in enumerate(items):
        at = LEFT + 120 * number
        shapes.append(f'<rect x="{at}" y="29" width="10" height="10" fill="{colour}"/>' + text(at + 14, 38, name, 11))
    shapes.append(text(LEFT + 120 * len(items) + 20, 38, "grey lines: R, or all; at the right the mean of the run", 11))
    return "\n".join(shapes)


def line(x1, y1, x2, y2, colour, dashes="none"):
    return (f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
            f'stroke-dasharray="{dashes}"/>')


def text(x, y, words, size, colour=TEXT):
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}">{escape(words)}</text>'
