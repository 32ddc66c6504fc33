"""The page of a running planner in a real browser: drawn, alive, at every width, light and dark."""

import math

import pytest

from planner.adapters.clock import pause
from planner.adapters.http.server import serve
from planner.adapters.http.site import Site
from planner.errors import MetricsError
from planner.model import Mode, ServiceKey
from planner.record import TickRecord
from tests.builders import Drive, service
from tests.integration.browser_pipe import browser

PICTURES = 6
DETAIL = "/services/inference/llama-8b"


class Shown:
    """Two services that ticked for an hour, and the browser that looks at them."""

    def __init__(self):
        asked = service(mode=Mode.ACT, interval_s=4.0)
        self.drive = Drive(asked, prefill=2)
        self.site = Site([asked, service(key=ServiceKey("inference", "other"))])
        for minute in range(60):
            self.tick(rps=80.0 + 60.0 * math.sin(minute / 9.0))

    def tick(self, **over):
        record = TickRecord(self.drive.service.key, self.drive.tick(**over),
                            sla=self.drive.service.sla)  # fmt: skip
        self.site.record(record)
        return record


@pytest.fixture(scope="module")
def tab(chromium_binary, tmp_path_factory):
    with browser(chromium_binary, tmp_path_factory.mktemp("browser")) as tab:
        yield tab


@pytest.fixture
def shown():
    return Shown()


@pytest.fixture
def url(shown):
    with serve("127.0.0.1:0", shown.site) as url:
        yield url


def texts(tab, selector):
    return tab.run(f"Array.from(document.querySelectorAll('{selector}'), e => e.textContent)")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390], ids=["desk", "phone"])
def test_it_is_whole_and_scrolls_one_way_only(tab, url, width, dark, tmp_path):
    for path in ("/", DETAIL):
        tab.look(url + path, width, dark=dark)
        assert tab.run("document.documentElement.scrollWidth") == width
        assert not tab.console
        assert {asked.removeprefix(url) for asked in tab.asked} <= {
            path, "/assets/page.css", "/assets/page.js"}  # fmt: skip
    background = tab.run("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(16, 19, 24)" if dark else "rgb(246, 247, 249)")
    tab.photograph(tmp_path / "page.png")
    # An empty page compresses to a few kilobytes.
    assert (tmp_path / "page.png").stat().st_size > 50_000


def test_every_picture_has_lines_in_it(tab, url):
    tab.look(url + DETAIL)
    boxes = tab.run("""Array.from(document.querySelectorAll(".picture"), figure =>
        Array.from(figure.querySelectorAll("path.line"), line => line.getBBox().width))""")
    assert len(boxes) == PICTURES
    assert all(max(widths) > 500 for widths in boxes)


def test_a_tick_appears_without_a_reload(tab, shown, url):
    tab.look(url + DETAIL)
    tab.run("window.kept = 'the same document'")
    record = shown.tick(read=MetricsError("Prometheus: connection refused"))
    tab.wait("document.querySelector('.verdict').textContent.includes('connection refused')")
    assert tab.run("window.kept") == "the same document"
    assert texts(tab, ".verdict .badge") == ["holding"]
    assert f'data-at="{record.decision.at_s:.0f}"' in tab.run("document.body.innerHTML")
    assert not tab.console


def test_a_planner_that_is_gone_is_told_and_its_return_too(tab, shown):
    with serve("127.0.0.1:0", shown.site) as url:
        tab.look(url)
    tab.wait("!document.getElementById('lost').hidden")
    assert texts(tab, "#lost")[0].endswith("the planner does not answer")
    # What was known stays to be read.
    assert "llama-8b" in tab.run("document.body.innerText")
    with serve(url.removeprefix("http://"), shown.site):
        tab.wait("document.getElementById('lost').hidden")


def test_a_service_that_is_gone_is_told(tab, shown, url):
    tab.look(url + DETAIL)
    shown.site.follow([])
    tab.wait("document.getElementById('lost').textContent.includes('no service')")


def test_the_pointer_reads_all_pictures_at_once(tab, url):
    tab.look(url + DETAIL)
    tab.run("""(() => {
        const box = document.querySelector(".plot").getBoundingClientRect();
        document.querySelector(".plot").dispatchEvent(new PointerEvent("pointermove",
            {bubbles: true, clientX: box.left + box.width / 2, clientY: box.top + 20}));
    })()""")
    read = texts(tab, ".picture output")
    assert len(read) == PICTURES
    assert "seen " in read[0]
    assert "tokens/s" in read[0]
    assert "ready " in read[2]
    assert "at least 100%" in read[4]


def test_the_list_leads_to_a_service_and_can_be_searched(tab, url):
    tab.look(url)
    assert texts(tab, "#rows td:first-child a") == ["other", "llama-8b"]
    tab.run("""(() => { const words = document.getElementById("words"); words.value = "LLAMA";
        words.dispatchEvent(new Event("input", {bubbles: true})); })()""")
    assert texts(tab, "#rows tr:not([hidden]) td:first-child a") == ["llama-8b"]
    assert tab.run("document.getElementById('count').value") == "1 of 2"
    assert tab.run("document.querySelector('#rows tr:not([hidden]) a').href") == url + DETAIL


def test_a_search_survives_the_next_tick(tab, shown, url):
    tab.look(url)
    tab.run("""(() => { const words = document.getElementById("words"); words.focus();
        words.value = "llama"; words.dispatchEvent(new Event("input", {bubbles: true})); })()""")
    shown.tick(read=MetricsError("away"))
    tab.wait("document.querySelector('.badge.missed')")
    assert tab.run("document.getElementById('words').value") == "llama"
    assert tab.run("document.activeElement.id") == "words"
    assert texts(tab, "#rows tr:not([hidden]) td:first-child a") == ["llama-8b"]


def test_the_facts_and_pictures_need_no_script(tab, url):
    tab.look(url + DETAIL, script=False)
    tab.call("Emulation.setScriptExecutionDisabled", value=False)
    assert tab.run("document.documentElement.dataset.live") is None
    assert len(texts(tab, "path.line")) >= PICTURES
    assert "prefill" in tab.run("document.querySelector('.numbers').innerText")


def test_a_page_that_was_left_is_not_heard(tab, shown, url):
    with serve("127.0.0.1:0", shown.site) as gone:
        tab.look(gone)
    # As often as it can, of a server that is gone.
    tab.run("setInterval(refresh)")
    tab.look(url)
    assert not tab.console


def test_an_error_would_be_seen(tab, url):
    tab.look(url)
    tab.run("setTimeout(() => { drew(); })")
    while not tab.console:
        pause(0.01)
        tab.run("1")
    assert "drew is not defined" in tab.console[0]
