"""The dashboard in a real browser. tests/tests/dashboard.rs runs this: SWARM_PROGRAM names the program, SWARM_PLACE a
folder with genesis.toml and text.txt for a node.
"""

import http.client
import json
import os
import pathlib
import shutil
import sys
import tempfile
import unittest
import urllib.parse

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from playwright.sync_api import sync_playwright  # noqa: E402

import browser  # noqa: E402
import nodes  # noqa: E402
from fixture import Fixture, peer_id  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
AXE = browser.NOTED.parent / "npm/node_modules/axe-core/axe.min.js"
WAIT = nodes.GUARD * 1000
ROUNDS = 60


def setUpModule():
    global PLAYWRIGHT, BROWSER
    PLAYWRIGHT = sync_playwright().start()
    BROWSER = browser.launch(PLAYWRIGHT)


def tearDownModule():
    BROWSER.close()
    PLAYWRIGHT.stop()


class Case(unittest.TestCase):
    """Opens pages, and is not content with one that complains or asks for anything elsewhere."""

    # What the browser itself says when a stream breaks off, which is no mistake of the page.
    EXPECTED = ("net::ERR_", "Failed to load resource")

    def setUp(self):
        self.place = pathlib.Path(tempfile.mkdtemp(prefix="swarm-dashboard-"))
        self.addCleanup(shutil.rmtree, self.place, ignore_errors=True)
        self.complaints, self.asked = [], []

    def open(self, url, ready="#loss svg", **context):
        opened = BROWSER.new_context(**context)
        self.addCleanup(opened.close)
        opened.set_default_timeout(WAIT)
        page = opened.new_page()
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda said: said.type in ("error", "warning") and self.complaints.append(said.text))
        page.on("request", lambda request: self.asked.append(request.url))
        page.goto(url)
        page.wait_for_selector(ready)
        page.evaluate("window.stayed = true")
        return page

    def content(self, url, away=False):
        """Checks what the page has asked for and complained of."""
        for asked in self.asked:
            self.assertTrue(asked.startswith(url), f"{asked} is not of {url}")
        bad = [text for text in self.complaints if not (away and any(word in text for word in self.EXPECTED))]
        self.assertEqual(bad, [])

    def text(self, page, selector):
        return page.locator(selector).inner_text()

    def until(self, page, selector, wanted):
        page.wait_for_function("([at, text]) => document.querySelector(at)?.textContent.includes(text)", arg=[selector, wanted])


class Made(Case):
    """Over a folder that was made."""

    def setUp(self):
        super().setUp()
        self.fixture = Fixture(str(self.place / "node"))
        self.fixture.now -= 31 * ROUNDS
        self.fixture.started()
        for _ in range(ROUNDS):
            self.fixture.play()
        self.fixture.log("WARN", "<img src=x onerror=document.title=1> is a name")
        self.fixture.status()
        self.server = self.serve()
        self.url = self.server.url()

    def serve(self):
        server = nodes.dashboard(self.place / "node", self.place / "log.txt")
        self.addCleanup(server.kill)
        return server

    def ask(self, path, host=None, method="GET"):
        address = urllib.parse.urlsplit(self.url)
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=nodes.GUARD)
        connection.request(method, path, headers={"Host": host or address.netloc})
        return connection.getresponse()

    def test_only_the_whole_address_opens_it(self):
        path = urllib.parse.urlsplit(self.url).path
        self.assertEqual(self.ask(path).status, 200)
        for other in ("/", "/index.html", "/api/live", "/" + "0" * 32 + "/"):
            answer = self.ask(other)
            self.assertEqual(answer.status, 404, other)
            self.assertNotIn(b"<html", answer.read())
        refused = self.ask(path, host="rebound.example")
        self.assertEqual(refused.status, 403)
        self.assertNotIn(b"<html", refused.read())

    def test_it_shows_what_the_node_wrote(self):
        page = self.open(self.url)
        self.assertEqual(self.text(page, "#headline"), "Training with 7 peers")
        self.assertEqual(self.text(page, "#tile-round"), str(ROUNDS))
        self.assertEqual(self.text(page, "#tile-same"), "6 of 6")
        self.assertIn("swarm, as its authors claim", self.text(page, "#loss .legend"))
        self.assertIn("7 peers, 5 directly, 2 through a relay", self.text(page, "#peers-about"))
        self.assertEqual(page.locator("#peers .spoke.relayed").count(), 3, "two peers, and the legend")
        self.assertGreater(page.locator("#deltas .cell.me").count(), 20)
        self.assertGreater(page.locator("#heat .heat").count(), 100)
        self.assertIn("of 50.0 kB/s", self.text(page, "#meter"))
        # Text is text.
        self.assertIn("<img src=x onerror", self.text(page, "#log"))
        self.assertEqual(page.locator("#log img").count(), 0)
        page.locator("#heat-table").evaluate("node => (node.closest('details').open = true)")
        self.until(page, "#heat-table", "model.layers.3.mlp.down_proj.weight")
        page.locator("#deltas-table").evaluate("node => (node.closest('details').open = true)")
        self.until(page, "#deltas-table", peer_id(1))
        page.get_by_label("60 rounds").check()
        self.assertEqual(page.evaluate("document.title.includes('heather')"), True)
        self.content(self.url)

    def test_it_follows(self):
        page = self.open(self.url)
        for _ in range(3):
            self.fixture.play()
        self.fixture.status(phase="paused", detail="paused: on battery 43 %, resumes on AC", guest={
            "trains": False, "share": 0, "words": "paused: on battery 43 %, resumes on AC",
            "objections": [{"why": "power", "because": "on battery 43 %", "until": "on AC"}],
        })
        self.until(page, "#tile-round", str(ROUNDS + 3))
        self.until(page, "#headline", "Paused")
        self.until(page, "#reasons", "on battery 43 %")
        self.until(page, "#log", f"round {ROUNDS + 2}: loss")
        page.wait_for_function(f"() => document.querySelector('#deltas svg').getAttribute('aria-label').includes('to {ROUNDS + 1}')")
        self.fixture.status(agreement={"same": 4, "differ": 2, "unknown": 0})
        self.until(page, "#same", "2 neighbours of 6 hold another history")
        self.assertTrue(page.evaluate("window.stayed"))
        self.content(self.url)

    def test_it_outlives_its_node(self):
        page = self.open(self.url)
        self.server.kill()
        self.until(page, "#link", "the node is away, trying again")
        self.fixture.play()
        self.fixture.status()
        again = self.serve()
        self.assertEqual(again.url(), self.url, "the same address")
        self.until(page, "#tile-round", str(ROUNDS + 1))
        self.until(page, "#link", "live")
        self.assertTrue(page.evaluate("window.stayed"), "without loading the page again")
        self.content(self.url, away=True)

    def test_a_phone_needs_no_scrolling_to_the_side(self):
        page = self.open(self.url, viewport={"width": 360, "height": 740}, device_scale_factor=2, has_touch=True)
        page.wait_for_selector("#heat svg")
        page.wait_for_selector("#peers svg")
        self.assertLessEqual(page.evaluate("document.documentElement.scrollWidth"), 360)
        lefts = page.evaluate("[...new Set([...document.querySelectorAll('.card')].map(card => Math.round(card.getBoundingClientRect().left)))]")
        self.assertEqual(len(lefts), 1, "one column")
        self.content(self.url)

    def test_both_themes_can_be_read_by_everybody(self):
        grounds = []
        for scheme in ("light", "dark"):
            page = self.open(self.url, color_scheme=scheme)
            page.wait_for_selector("#peers svg")
            page.wait_for_selector("#deltas svg")
            page.evaluate("for (const details of document.querySelectorAll('details')) details.open = true")
            self.until(page, "#peers-table", "relayed")
            self.assertEqual(page.evaluate((HERE / "look.js").read_text(encoding="utf-8")), [], scheme)
            grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        self.assertNotEqual(*grounds)
        self.content(self.url)

    @unittest.skipUnless(AXE.exists(), "axe-core is not there: scripts/dashboard.sh puts it there, where npm is")
    def test_axe_finds_nothing(self):
        for scheme in ("light", "dark"):
            # What the page forbids would keep the test's own script out.
            page = self.open(self.url, color_scheme=scheme, bypass_csp=True)
            page.evaluate("for (const details of document.querySelectorAll('details')) details.open = true")
            page.add_script_tag(path=AXE)
            found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
            told = [(bad["id"], [node["html"][:120] for node in bad["nodes"][:3]]) for bad in found["violations"]]
            self.assertEqual(told, [], scheme)

    def test_the_keyboard_reaches_everything_and_one_sees_where_it_is(self):
        page = self.open(self.url)
        wanted = page.evaluate("""() => {
            const all = [...document.querySelectorAll("a[href], button, summary, textarea, input, [tabindex='0']")];
            const seen = all.filter((node) => node.checkVisibility() && !node.disabled);
            seen.forEach((node, at) => (node.dataset.at = at));
            return seen.filter((node) => node.type !== "radio").map((node) => Number(node.dataset.at));
        }""")
        reached, unseen = set(), []
        for _ in range(len(wanted) + 10):
            page.keyboard.press("Tab")
            at, shown, what = page.evaluate("""() => {
                const node = document.activeElement;
                const ring = node.type === "radio" ? node.nextElementSibling : node;
                const style = getComputedStyle(ring);
                return [Number(node.dataset.at ?? -1), style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1, node.outerHTML.slice(0, 80)];
            }""")
            if at < 0:
                break
            reached.add(at)
            if not shown:
                unseen.append(what)
        self.assertEqual(set(wanted) - reached, set())
        self.assertEqual(unseen, [])
        # The first is the way past everything else; a table opens with the keyboard alone.
        page.evaluate("document.activeElement.blur()")
        page.locator(".skip").focus()
        page.keyboard.press("Enter")
        self.assertEqual(page.evaluate("document.activeElement.id"), "main")
        page.locator("#peers-table").evaluate("node => node.closest('details').querySelector('summary').focus()")
        page.keyboard.press("Enter")
        self.until(page, "#peers-table", "relayed")
        self.content(self.url)

    def test_without_a_snapshot_it_says_so(self):
        page = self.open(self.url)
        page.get_by_label("The beginning of a text").fill("Dear ")
        page.get_by_role("button", name="Go on with it").click()
        self.until(page, "#try-said", "there is no snapshot of the model yet")
        self.assertTrue(page.get_by_role("button", name="Go on with it").is_enabled())

    def test_an_empty_folder_and_nonsense_break_nothing(self):
        folder = self.place / "bare"
        folder.mkdir()
        (folder / "status.json").write_text("null")
        (folder / "events.jsonl").write_text('{"event":"folded","round":3,"authors":null,"heat":[{"name":7,"rms":"x"}]}\n{"event":"round","round":"x"}\n{"event":"unheard","of":[]}\n')
        with nodes.dashboard(folder, self.place / "bare.txt") as server:
            url = server.url()
            page = self.open(url, ready="#loss .empty")
            self.until(page, "#link", "live")
            (folder / "status.json").write_text(json.dumps({"round": 1, "network": {"peers": [{}]}, "guest": {}, "meter": {"sent_a_second": 1}}))
            self.until(page, "#tile-round", "1")
            self.content(url)


class Real(Case):
    """With a node that trains."""

    def test_a_node_that_is_killed_and_started_again(self):
        place = self.place / "real"
        shutil.copytree(os.environ["SWARM_PLACE"], place)
        with nodes.node(place, self.place / "first.txt") as node:
            url = node.url()
            page = self.open(url)
            page.wait_for_function("() => Number(document.querySelector('#tile-round').textContent) >= 2")
            self.until(page, "#headline", "Training")
            page.wait_for_selector("#heat .heat")
            page.wait_for_selector("#deltas .cell.me")
            self.until(page, "#log", "dashboard: ")
            page.get_by_label("The beginning of a text").fill("the round ")
            page.get_by_label("Tokens").fill("20")
            until = 40
            while True:
                page.get_by_role("button", name="Go on with it").click()
                page.wait_for_selector("#go:enabled")
                if "snapshot" not in self.text(page, "#try-said") or until == 0:
                    break
                until -= 1
                page.wait_for_timeout(500)
            self.assertIn("characters in", self.text(page, "#try-said"))
            self.assertTrue(self.text(page, "#written").startswith("the round "))
            before = int(self.text(page, "#tile-round"))
            node.kill()
            self.until(page, "#link", "away")
        with nodes.node(place, self.place / "second.txt") as again:
            self.assertEqual(again.url(), url)
            self.until(page, "#link", "live")
            page.wait_for_function(f"() => Number(document.querySelector('#tile-round').textContent) > {before}")
            self.assertTrue(page.evaluate("window.stayed"))
        self.content(url, away=True)


if __name__ == "__main__":
    unittest.main(verbosity=2)
