"""Does a browser show what status.json says, and nothing that a machine wants it to do?

Headless Chromium opens the page from a server of this test, lets some virtual seconds go by, and
prints the document. The server can change its answer from request to request.
"""
import email.utils
import html.parser
import http.server
import json
import random
import shutil
import subprocess
import tempfile
import threading
import unittest
from dataclasses import dataclass, field, replace
from pathlib import Path

from made_up import ROOM, hostile_row, row
from room.page import History, install, status

CHROMIUM = shutil.which("chromium")
# It only ends what hangs.
BROWSER_SECS = 120
# A second script in the page: it notes what the first one does.
PROBE = """
"use strict";
const seen = document.documentElement.dataset;
seen.added = 0, seen.errors = "", seen.violations = "";
addEventListener("error", (event) => { seen.errors += event.message; });
addEventListener("unhandledrejection", (event) => { seen.errors += event.reason; });
addEventListener("securitypolicyviolation",
  (event) => { seen.violations += event.violatedDirective; });
addEventListener("DOMContentLoaded", () => new MutationObserver((changes) => {
  for (const change of changes) seen.added = Number(seen.added) + change.addedNodes.length;
}).observe(document.getElementById("tiles"), { childList: true }));
"""


@dataclass
class Element:
    kind: str
    attributes: dict[str, str]
    children: list["Element | str"] = field(default_factory=list)

    def text(self) -> str:
        parts = [c if isinstance(c, str) else c.text() for c in self.children]
        return " ".join(" ".join(parts).split())

    def all(self) -> "list[Element]":
        below = [c for c in self.children if isinstance(c, Element)]
        return [self, *(e for child in below for e in child.all())]

    def find(self, id_: str) -> "Element":
        return next(e for e in self.all() if e.attributes.get("id") == id_)

    def items(self, id_: str) -> list[str]:
        return [e.text() for e in self.find(id_).all() if e.kind == "li"]

    def has(self, class_: str) -> bool:
        return class_ in self.attributes.get("class", "").split()


class Document(html.parser.HTMLParser):
    VOID = ("meta", "link", "path", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.top = Element("top", {})
        self.open = [self.top]
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        made = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(made)
        if tag not in self.VOID:
            self.open.append(made)

    def handle_endtag(self, tag):
        if tag not in self.VOID and any(e.kind == tag for e in self.open):
            while self.open.pop().kind != tag:
                pass

    def handle_data(self, data):
        self.open[-1].children.append(data)


class Page:
    """Serves the page; `answers` gives what status.json holds at the n-th request, or None for an
    error. `late` is how many seconds the `Date` of the answers is after `now`, if it is sent."""

    def __init__(self, answers, late=None, now=1000.0):
        self.answers, self.late, self.now = answers, late, now
        self.requests = 0
        self.unknown: list[str] = []

    def open(self, virtual_secs=3) -> Element:
        with tempfile.TemporaryDirectory() as folder:
            install(Path(folder))
            index = Path(folder) / "index.html"
            index.write_text(index.read_text().replace(
                "<script", '<script src="probe.js"></script><script', 1))
            (Path(folder) / "probe.js").write_text(PROBE)
            server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self.handler(folder))
            threading.Thread(target=server.serve_forever, daemon=True).start()
            try:
                return Document(dump(server.server_port, virtual_secs)).top
            finally:
                server.shutdown()
                server.server_close()

    def handler(self, folder):
        page = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *arguments):
                super().__init__(*arguments, directory=folder)

            def log_message(self, *_):
                pass

            def end_headers(self):
                self.send_header("Content-Security-Policy", "default-src 'self'")
                super().end_headers()

            def do_GET(self):
                if self.path == "/status.json":
                    self.answer()
                    return
                if self.path not in ("/", "/page.css", "/page.js", "/probe.js", "/favicon.ico"):
                    page.unknown.append(self.path)
                super().do_GET()

            def answer(self):
                content = page.answers(page.requests)
                page.requests += 1
                self.send_response_only(500 if content is None else 200)
                if page.late is not None:
                    date = email.utils.formatdate(page.now + page.late, usegmt=True)
                    self.send_header("Date", date)
                data = json.dumps(content).encode()
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        return Handler


def dump(port, virtual_secs):
    with tempfile.TemporaryDirectory() as profile:
        done = subprocess.run(
            [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
             "--no-proxy-server", "--disable-dev-shm-usage", f"--user-data-dir={profile}",
             "--window-size=1920,1080", f"--virtual-time-budget={virtual_secs * 1000}",
             "--dump-dom", f"http://127.0.0.1:{port}/"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=BROWSER_SECS, check=True)
    return done.stdout.decode("utf-8", "replace")


def figures(rows, now=1000.0, **others):
    around = replace(ROOM, began_at=now - 90, **others)
    history = History(around.began_at)
    for second in range(90):
        history.add(around.began_at + second, second * 1_000_000)
    return status(rows, around, history, now)


def always(content):
    return lambda _: content


@unittest.skipUnless(CHROMIUM, "needs Debian's chromium")
class InABrowser(unittest.TestCase):
    def assert_quiet(self, page, document):
        seen = next(e for e in document.all() if e.kind == "html").attributes
        self.assertEqual((seen["data-errors"], seen["data-violations"], page.unknown), ("", "", []))

    def test_states_names_flags_and_totals(self):
        rows = [
            row(10, "done", back=True),
            row(2, "downloading", percent=43.7, down=112_300_000, eta=75),
            row(1, "failed", error="no disk fits", words="52-54-00-77-00-01.gz"),
            row(3, "downloading", percent=5.0, flags=["link has 100 Mb/s"]),
            row(4), row(5, "verifying", percent=60.0), row(11, "done", again=True, complete=False),
            replace(row(12, "booted"), mac="", name="10.77.1.13"),
        ]
        page = Page(always(figures(rows, seed_up=5_000_000, messages=(
            (940.0, "opentracker ended and was started again"),))), late=0)
        document = page.open()
        self.assertEqual(document.items("tiles"), [
            "B 10.77.1.13 booted 10.77.1.13", "! pc-01 failed no disk fits",
            "D pc-02 downloading 43 % 112 MB/s, 1:15",
            "D pc-03 downloading 5 % link has 100 Mb/s", "? pc-04 missing not seen yet",
            "V pc-05 verifying 60 % 10.77.1.6", "✓ pc-10 done started its own disk",
            "A pc-11 again to be imaged again"])
        tiles = [e.attributes["class"] for e in document.find("tiles").all() if e.kind == "li"]
        self.assertEqual(tiles, ["booted", "failed", "downloading", "downloading flagged",
                                 "missing", "verifying", "done", "again"])
        self.assertEqual({name: document.find(name).text() for name in (
            "complete", "machines", "failed", "working", "missing", "eta", "down", "seed",
            "title")}, {
            "complete": "1", "machines": "8", "failed": "1", "working": "5", "missing": "1",
            "eta": "1:15", "down": "112 MB/s", "seed": "5.0 MB/s", "title": "lab.img"})
        self.assertEqual(document.items("failures"), ["pc-01 no disk fits log"])
        self.assertEqual(document.items("flags"),
                         ["missing pc-04 log", "pc-03 link has 100 Mb/s log"])
        self.assertEqual(document.items("messages"),
                         ["60 s ago opentracker ended and was started again log"])
        links = [e.attributes.get("href") for e in document.all()
                 if e.kind == "a" and "hidden" not in e.attributes and "href" in e.attributes]
        self.assertIn(f"words/{row(1).mac}.txt", links)
        self.assertEqual(document.find("failures").attributes["aria-live"], "polite")
        self.assertTrue(document.find("curve").attributes["d"].startswith("M0.0 59.0L"))
        self.assertIn("hidden", document.find("age").attributes)
        self.assert_quiet(page, document)

    def test_a_small_room_is_read_from_afar(self):
        for count in (1, 2, 8):
            page = Page(always(figures([row(number) for number in range(count)])))
            self.assertEqual(page.open().find("tiles").attributes["class"], "large", count)

    def test_a_change_is_shown_without_building_400_tiles_again(self):
        def answers(request):
            rows = [row(n, "downloading", percent=float(request)) for n in range(400)]
            if request >= 3:
                rows[7] = row(7, "failed", error="disk on fire")
            return figures(rows, now=1000.0 + request)

        page = Page(answers)
        document = page.open(virtual_secs=8)
        # Once a second.
        self.assertGreaterEqual(page.requests, 7)
        self.assertEqual(document.items("failures"), ["pc-07 disk on fire log"])
        self.assertEqual(document.items("tiles")[7], "! pc-07 failed disk on fire")
        added = next(e for e in document.all() if e.kind == "html").attributes["data-added"]
        self.assertEqual(added, "400")
        self.assert_quiet(page, document)

    def test_figures_that_nobody_updates_are_called_old(self):
        content = figures([row(1, "downloading", percent=1.0)])
        age = Page(always(content)).open(virtual_secs=20).find("age")
        self.assertNotIn("hidden", age.attributes)
        self.assertRegex(age.text(),
                         r"^These figures are (1[5-9]|20) s old\. Nothing on the server")

    def test_old_figures_are_old_for_someone_who_comes_later(self):
        # Both clocks are the server's, and wrong by decades.
        page = Page(always(figures([row(1)])), late=600)
        self.assertRegex(page.open().find("age").text(), "^These figures are 10 min old")

    def test_a_server_that_has_gone(self):
        content = figures([row(1, "downloading", percent=1.0)])
        page = Page(lambda request: content if request < 2 else None)
        document = page.open(virtual_secs=12)
        self.assertRegex(document.find("age").text(), r"s old\. The server does not answer\.$")
        self.assertEqual(document.items("tiles")[0][:7], "D pc-01")

    def test_the_end_is_not_old(self):
        page = Page(always(figures([row(1, "done")], phase="ended", words="all are good")))
        document = page.open(virtual_secs=20)
        self.assertIn("hidden", document.find("age").attributes)
        self.assertIn("the job has ended · all are good", document.find("phase").text())

    def test_hostile_text_stays_text(self):
        evil = "<script>document.title='owned'</script><img src=x onerror=alert(1)>"
        rows = [row(1, "failed", name=evil, error=evil, flags=[evil], words="x"),
                row(2, "downloading", name="a" * 10_000, waiting="b" * 10_000, percent=1.0),
                replace(row(3, "failed", name="\u202egnp.exe", words="x"),
                        mac="../../status.json?"),
                replace(row(4), name="__proto__", mac="__proto__", state="constructor")]
        random_ = random.Random(5)
        rows += [hostile_row(random_, number) for number in range(5, 60)]
        page = Page(always(figures(rows, title=evil, words=evil)))
        document = page.open()
        self.assertEqual(len(document.items("tiles")), 59)
        self.assertIn(evil, " ".join(document.items("tiles")))
        self.assertEqual([e.kind for e in document.all() if e.kind in ("img", "iframe")], [])
        self.assertEqual(sum(e.kind == "script" for e in document.all()), 2)
        for element in document.all():
            self.assertLess(max(map(len, element.attributes.values()), default=0), 3000)
            self.assertNotIn("status.json", element.attributes.get("href", "")
                             if element.kind == "a" and element.text() == "log" else "")
        self.assert_quiet(page, document)


class Colours(unittest.TestCase):
    def test_text_has_a_contrast_of_4_5(self):
        css = (Path(__file__).parents[2] / "scripts/room/page/page.css").read_text()
        light, dark = (dict(colour.split(":") for colour in block)
                       for block in colours_of(css))
        pairs = [("ink", "paper"), ("soft", "paper"), ("ink", "tile"), ("soft", "tile"),
                 ("on-done", "done"), ("on-alarm", "alarm"), ("alarm", "paper"), ("flag", "tile"),
                 ("flag", "paper")]
        for colours in (light, dark):
            for text, ground in pairs:
                with self.subTest(text=text, ground=ground, colours=colours):
                    self.assertGreaterEqual(contrast(colours[text], colours[ground]), 4.5)


def colours_of(css):
    blocks = css.split(":root {")[1:]
    for block in blocks:
        lines = block.split("}")[0].replace(" ", "").replace("\n", "").split(";")
        yield [line.removeprefix("--") for line in lines if line.startswith("--")]


def contrast(one, other):
    """WCAG 2.1: relative luminance."""
    def luminance(colour):
        parts = [int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


if __name__ == "__main__":
    unittest.main()
