"""Who waited for whom? Draws how busy each machine's link was over the time of a run, as an SVG.

One row for each machine, the seeder first, the others in the order in which they were complete: what it sent upwards
from the middle of the row, what it received downwards, each as a share of R, what one TCP stream gets through such a
link.
"""

from xml.sax.saxutils import escape

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 1200, 90, 60, 56, 40
# Of one row: both halves and the gap to the next.
HALF, GAP = 16, 5
SENT, RECEIVED, DONE, KILLED, LINE, TEXT = "#d95f02", "#1b7db8", "#2a8a2a", "#c00000", "#cccccc", "#333333"


def draw(title, samples, result, bytes_per_second, marks):
    """`samples`: (seconds, [(bytes sent, bytes received) of each machine]); `marks`: (name, seconds) over all rows."""
    end = max([samples[-1][0]] + [seconds for _, seconds in marks]) * 1.02
    completed = result["completed_seconds"]
    order = [0] + sorted(range(1, len(completed) + 1), key=lambda machine: completed[machine - 1] or 0)
    height = TOP + len(order) * (2 * HALF + GAP) + BOTTOM

    def x(seconds):
        return LEFT + (WIDTH - LEFT - RIGHT) * seconds / end

    shapes = [text(LEFT, 20, title, 15), legend()]
    shapes += axis(end, x, height)
    for row, machine in enumerate(order):
        middle = TOP + row * (2 * HALF + GAP) + HALF
        shapes.append(row_of(machine, samples, bytes_per_second, x, middle))
        if machine:
            shapes += ending(machine - 1, result, x, middle)
    for name, seconds in marks:
        shapes.append(line(x(seconds), TOP - 6, x(seconds), height - BOTTOM, TEXT, "4 3"))
        shapes.append(text(x(seconds) + 3, TOP - 8, name, 11))
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="sans-serif">\n'
            f'<rect width="{WIDTH}" height="{height}" fill="white"/>\n' + "\n".join(shapes) + "\n</svg>\n")


def row_of(machine, samples, bytes_per_second, x, middle):
    """Two filled curves, a name, and the mean use of the link in both directions."""
    total_seconds = samples[-1][0] - samples[0][0]
    shapes, means = [], []
    for direction, colour, sign in ((0, SENT, -1), (1, RECEIVED, 1)):
        points = [f"{x(samples[0][0]):.1f},{middle:.1f}"]
        for (before, counted), (after, counted_later) in zip(samples, samples[1:]):
            moved = counted_later[machine][direction] - counted[machine][direction]
            # A queue that has been empty lets a burst through: more than R for a moment.
            share = min(1.15, moved / max(1e-6, after - before) / bytes_per_second)
            y = middle + sign * HALF * share / 1.15
            points += [f"{x(before):.1f},{y:.1f}", f"{x(after):.1f},{y:.1f}"]
        points.append(f"{x(samples[-1][0]):.1f},{middle:.1f}")
        shapes.append(f'<polygon points="{" ".join(points)}" fill="{colour}"/>')
        moved = samples[-1][1][machine][direction] - samples[0][1][machine][direction]
        means.append(moved / max(1e-6, total_seconds) / bytes_per_second)
        full = middle + sign * HALF / 1.15
        shapes.append(line(x(0), full, x(samples[-1][0]), full, LINE))
    shapes.append(text(6, middle + 4, "seeder" if machine == 0 else f"machine {machine}", 12))
    shapes.append(text(WIDTH - RIGHT + 6, middle - 3, f"↑ {means[0]:.0%}", 11, SENT))
    shapes.append(text(WIDTH - RIGHT + 6, middle + 11, f"↓ {means[1]:.0%}", 11, RECEIVED))
    return "\n".join(shapes)


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
    items = [(SENT, "sent (up)"), (RECEIVED, "received (down)"), (DONE, "complete"), (KILLED, "killed")]
    shapes = []
    for number, (colour, name) in enumerate(items):
        at = LEFT + 130 * number
        shapes.append(f'<rect x="{at}" y="29" width="10" height="10" fill="{colour}"/>' + text(at + 14, 38, name, 11))
    shapes.append(text(LEFT + 130 * len(items), 38, "grey lines: R; at the right the mean over the run", 11))
    return "\n".join(shapes)


def line(x1, y1, x2, y2, colour, dashes="none"):
    return (f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
            f'stroke-dasharray="{dashes}"/>')


def text(x, y, words, size, colour=TEXT):
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}">{escape(words)}</text>'
