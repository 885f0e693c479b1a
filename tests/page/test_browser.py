"""The page in a real browser: Chromium, driven by selenium, without a network."""

from __future__ import annotations

import base64
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from components.verify.model import Entry, Topic
from page.content import walks
from page.document import Page, html
from page.foreseen.lab import foresee
from tests.page.pages import HUNDRED_NODES, hundred_nodes, planned, planned_html

BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
DRIVER = shutil.which("chromedriver")
if BROWSER is None or DRIVER is None:
    missing = "Chromium" if BROWSER is None else "chromedriver"
    pytest.skip(f"{missing} is not installed (Debian: chromium, chromium-driver)", allow_module_level=True)

TIMEOUT_SECONDS = 60

# Every worker of pytest-xdist imports this file, and selenium takes longer to import than anything else. So it is
# imported by the one that runs these tests.
if TYPE_CHECKING:
    from selenium import webdriver

    Open = Callable[..., webdriver.Chrome]


@pytest.fixture(scope="module")
def chromium() -> Iterator[webdriver.Chrome]:
    from selenium import webdriver
    from selenium.common.exceptions import WebDriverException
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = BROWSER
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1280,900"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # Chromium leaves a folder there.
    with tempfile.TemporaryDirectory(prefix="cnilab-test-", ignore_cleanup_errors=True) as folder:
        try:
            driver = webdriver.Chrome(options=options, service=Service(DRIVER, env=os.environ | {"TMPDIR": folder}))
        except WebDriverException as error:
            pytest.skip(f"Chromium does not start here: {str(error.msg).splitlines()[0]}")
        yield driver
        driver.quit()


@pytest.fixture
def show(chromium: webdriver.Chrome, tmp_path: Path) -> Iterator[Open]:
    """Open a page from disk. Afterwards nothing must have been logged, and nothing asked for but the file."""

    def shown(text: str, *, width: int = 1280, dark: bool = False, calm: bool = False) -> webdriver.Chrome:
        path = tmp_path / "page.html"
        path.write_text(text, encoding="utf-8")
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        features = [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce" if calm else "no-preference"},
        ]
        chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features, "media": ""})
        chromium.get_log("browser")
        chromium.get_log("performance")
        chromium.get(path.as_uri())
        # Each part is filled when its data is unpacked.
        ready = (
            "return document.querySelector('#checks-list').children.length > 0 && document.querySelector('.graph svg')"
        )
        until(chromium, lambda driver: bool(driver.execute_script(ready)), "the page is not ready")
        return chromium

    yield shown
    assert [entry["message"] for entry in chromium.get_log("browser")] == []
    events = [json.loads(entry["message"])["message"] for entry in chromium.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if not url.startswith(("file:", "blob:"))] == []


def run(driver: webdriver.Chrome, script: str, *arguments: Any) -> Any:
    return driver.execute_script(script, *arguments)


def until(driver: webdriver.Chrome, met: Callable[[webdriver.Chrome], bool], problem: str) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(driver, TIMEOUT_SECONDS).until(met, problem)


def text_of(driver: webdriver.Chrome, selector: str) -> str:
    return str(run(driver, "return document.querySelector(arguments[0]).innerText", selector))


def wait_for(driver: webdriver.Chrome, selector: str, words: str) -> None:
    until(driver, lambda d: words in text_of(d, selector), f"{words} in {selector}")


def click(driver: webdriver.Chrome, selector: str, number: int = 0) -> None:
    """Click an element, also one of a drawing."""
    script = (
        "document.querySelectorAll(arguments[0])[arguments[1]].dispatchEvent(new MouseEvent('click', arguments[2]))"
    )
    run(driver, script, selector, number, {"bubbles": True})


def type_into(driver: webdriver.Chrome, selector: str, words: str) -> None:
    script = (
        "const box = document.querySelector(arguments[0]); box.value = arguments[1];"
        "box.dispatchEvent(new Event('input', {bubbles: true}))"
    )
    run(driver, script, selector, words)


def open_details(driver: webdriver.Chrome, inside: str = "body") -> None:
    run(driver, "document.querySelectorAll(`${arguments[0]} details`).forEach(part => part.open = true)", inside)


def press(driver: webdriver.Chrome, *names: str) -> None:
    """Press keys: a character, or the name of a key in selenium's Keys."""
    from selenium.webdriver.common.keys import Keys

    for name in names:
        driver.switch_to.active_element.send_keys(name if len(name) == 1 else getattr(Keys, name))


# --- what it does ----------------------------------------------------------------------------------------------------


def test_a_node_and_its_pod_are_chosen_by_the_keyboard(show: Open) -> None:
    driver = show(planned_html("cfos-egress"))
    run(driver, "document.querySelector('.wide [tabindex=\"0\"]').focus()")
    press(driver, "ENTER")
    wait_for(driver, "#panel", "ip1001100")
    assert run(driver, "return document.activeElement.id") == "panel"
    run(driver, "document.querySelector('.wide [data-node=\"0\"]').focus()")
    press(driver, "ARROW_DOWN")
    assert "Pod default/normal-" in run(driver, "return document.activeElement.getAttribute('aria-label')")
    press(driver, "ENTER")
    wait_for(driver, "#panel", "default via 169.254.1.1 dev eth0")


def test_every_table_of_a_node_is_in_its_panel(show: Open) -> None:
    driver = show(planned_html("cfos-egress"))
    click(driver, "[data-pick]", 1)
    wait_for(driver, "#panel", "ip-10-0-2-200")
    open_details(driver, "#panel")
    wait_for(driver, "#panel", "66:cc:3e:e6:fb:12 dev vxlan.calico dst 10.0.1.100 self permanent")
    panel = text_of(driver, "#panel")
    for line in (
        "10.244.6.0/24 via 10.244.6.0 dev vxlan.calico onlink mtu 8951",
        "10.244.6.0 dev vxlan.calico lladdr 66:cc:3e:e6:fb:12 PERMANENT",
        "/etc/cni/multus/net.d/default-calico.conf",
        "foreseen from the plan",
    ):
        assert line in panel, line


def test_a_walk_steps_by_keyboard_and_plays(show: Open) -> None:
    driver = show(planned_html("cfos-egress"))
    wait_for(driver, "#counter", "Hop 1 of 16")
    run(driver, "document.querySelector('#player').focus()")
    press(driver, "ARROW_RIGHT", "ARROW_RIGHT", "ARROW_RIGHT", "ARROW_RIGHT")
    wait_for(driver, "#counter", "Hop 5 of 16, way out: tunnel")
    hop = text_of(driver, "#hop")
    assert "Outer IP, UDP 4789, VXLAN" in hop and "10.0.2.201" in hop and "bridge fdb show dev vxlan.calico" in hop
    outer = "return document.querySelector('.packet .outer').style.display"
    assert run(driver, outer) == ""
    press(driver, "ARROW_LEFT")
    wait_for(driver, "#counter", "Hop 4 of 16")
    assert run(driver, outer) == "none"
    press(driver, "END")
    wait_for(driver, "#counter", "Hop 16 of 16, way back")
    press(driver, "HOME", "SPACE")
    assert text_of(driver, "#play") == "Pause"
    wait_for(driver, "#counter", "Hop 2 of 16")
    press(driver, "SPACE")
    assert text_of(driver, "#play") == "Play"


CHOOSE_WALK = "document.querySelectorAll('#walk-choice input')[arguments[0]].click()"


def test_every_walk_opens(show: Open) -> None:
    driver = show(planned_html("cfos-egress"))
    for number in range(6):
        run(driver, CHOOSE_WALK, number)
        hops = run(driver, "return document.querySelectorAll('#hops > li').length")
        wait_for(driver, "#counter", f"Hop 1 of {hops}")
    assert "firewall" in run(driver, "return document.querySelector('#stage').textContent")


def test_modes_can_be_chosen(show: Open) -> None:
    driver = show(planned_html("cross-node"))
    hidden = "return [...document.querySelectorAll('table.modes thead th')].filter(cell => cell.hidden).length"
    before = run(driver, hidden)
    run(driver, "[...document.querySelectorAll('#mode-choice input')].find(box => !box.checked).click()")
    assert run(driver, hidden) == before - 1
    assert "≠" in text_of(driver, "table.modes") and "this lab" in text_of(driver, "table.modes thead")


def test_expectations_are_filtered(show: Open) -> None:
    driver = show(planned_html("cfos-egress"))
    type_into(driver, "#filters [name=words]", "66:cc:3e:e6:fb:12 fdb")
    wait_for(driver, "#checks-count", "2 of ")
    run(driver, "document.querySelector('.check').open = true")
    wait_for(driver, "#checks-list", "bridge fdb show dev vxlan.calico")
    assert "Because" in text_of(driver, "#checks-list")
    type_into(driver, "#filters [name=words]", "no such words anywhere")
    wait_for(driver, "#checks-count", "0 of ")


def test_the_graph_zooms_and_finds(show: Open) -> None:
    driver = show(planned_html("cfos-egress"))
    view = "return document.querySelector('.graph svg').getAttribute('viewBox').split(' ').map(Number)"
    until(driver, lambda d: run(d, view)[2] < 3000, "the graph is not drawn")
    first = run(driver, view)
    run(driver, "document.querySelector('#graph').focus()")
    press(driver, "+")
    assert run(driver, view)[2] < first[2]
    press(driver, "0")
    assert run(driver, view)[2] > 3000
    type_into(driver, "#graph-search", "ipreservation")
    wait_for(driver, "#graph-found", "1 found")
    run(driver, "document.querySelector('#graph-search').focus()")
    press(driver, "ENTER")
    wait_for(driver, "#graph-note", "lab-node-files-reservation")
    assert "Waits for" in text_of(driver, "#graph-note")


# --- how it looks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stack", ["cfos-egress", "cross-node"])
def test_a_phone_needs_no_sideways_scrolling(show: Open, stack: str) -> None:
    driver = show(planned_html(stack), width=390)
    assert run(driver, "return document.documentElement.scrollWidth") == 390
    click(driver, "[data-pick]")
    open_details(driver)
    assert run(driver, "return document.documentElement.scrollWidth") == 390


CONTRAST = """
const paint = (value) => {
  const canvas = document.createElement('canvas'); canvas.width = canvas.height = 1;
  const context = canvas.getContext('2d', {willReadFrequently: true});
  context.fillStyle = value; context.fillRect(0, 0, 1, 1); return [...context.getImageData(0, 0, 1, 1).data];
};
const light = ([r, g, b]) => {
  const [x, y, z] = [r, g, b].map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * x + 0.7152 * y + 0.0722 * z;
};
const ground = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const colour = paint(getComputedStyle(at).backgroundColor);
    if (colour[3] > 250) return colour;
  }
  return paint(getComputedStyle(document.body).backgroundColor);
};
const bad = new Map();
for (const element of document.querySelectorAll('main *, header *, footer *')) {
  if (element.closest('svg') || !element.checkVisibility()) continue;
  if (![...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim())) continue;
  const style = getComputedStyle(element);
  if (element.disabled) continue;
  const [one, other] = [light(paint(style.color)), light(ground(element))].sort((a, b) => b - a);
  const ratio = (one + 0.05) / (other + 0.05);
  if (ratio < 4.5) bad.set(element.tagName + '.' + element.className, ratio.toFixed(2));
}
return [...bad];
"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_has_enough_contrast(show: Open, dark: bool) -> None:
    driver = show(planned_html("cfos-egress"), dark=dark)
    click(driver, "[data-pick]", 1)
    wait_for(driver, "#panel", "Routes")
    assert run(driver, "return document.documentElement.dataset.theme") == ("dark" if dark else "light")
    assert run(driver, CONTRAST) == []


def test_everything_that_can_be_pressed_has_a_name(show: Open) -> None:
    driver = show(planned_html("cfos-egress"))
    kinds = "button, [role=button], input, select, [role=img], [role=region], [role=group]"
    names = """return [...document.querySelectorAll(arguments[0])]
        .filter(e => e.checkVisibility() && !(e.getAttribute('aria-label') || e.innerText || e.labels?.length
            || e.getAttribute('aria-labelledby')))
        .map(e => e.outerHTML.slice(0, 120))"""
    assert run(driver, names, kinds) == []
    ranks = run(driver, "return [...document.querySelectorAll('h1,h2,h3,h4')].map(h => Number(h.tagName[1]))")
    assert ranks[0] == 1 and all(after - before <= 1 for before, after in pairwise(ranks))


def test_colours_can_be_switched(show: Open) -> None:
    driver = show(planned_html("cross-node"))
    theme = "return document.documentElement.dataset.theme"
    seen = [run(driver, theme)]
    for _ in range(3):
        run(driver, "document.querySelector('#theme').click()")
        seen.append(run(driver, theme))
    assert seen == ["light", "light", "dark", "light"]


def test_a_reader_who_wants_no_motion_gets_none(show: Open) -> None:
    driver = show(planned_html("cross-node"), calm=True)
    wait_for(driver, "#counter", "Hop 1")
    assert run(driver, "return getComputedStyle(document.querySelector('.packet')).transitionDuration") in (
        "0s",
        "1e-05s",
    )


def test_it_prints_without_controls(show: Open) -> None:
    driver = show(planned_html("cross-node"))
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    run(driver, "dispatchEvent(new Event('beforeprint'))")
    gone = (
        "return ['.top', '.controls', '.graph', '.filters'].filter(s => document.querySelector(s)?.checkVisibility())"
    )
    assert run(driver, gone) == []
    assert run(driver, "return document.querySelector('#hops').checkVisibility()")
    paper = driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": False})["data"]
    assert base64.b64decode(paper).startswith(b"%PDF")


# --- what it must not do ---------------------------------------------------------------------------------------------

EVIL = [
    "</script><script>window.ran = 'script'</script>",
    "<img src=x onerror=\"window.ran = 'image'\">",
    '"><svg onload="window.ran = \'svg\'">',
    "'-alert(1)-'{{7*7}}",
]


def hostile() -> Page:
    """A page of a cluster that answers with markup wherever it can."""
    page = planned("cfos-egress")
    live, reading = foresee(page.lab, "cfos-egress")
    reading.pods = [
        replace(pod, name=f"{EVIL[n % len(EVIL)]}{n}", phase=EVIL[1] if n == 3 else pod.phase)
        for n, pod in enumerate(reading.pods)
    ]
    for facts in reading.nodes.values():
        for topic, table in facts.topics.items():
            for key, entries in table.items():
                table[key] = tuple(Entry(entry.fields, f"{entry.line} {EVIL[0]}{EVIL[1]}") for entry in entries)
            if topic == Topic.FILE:
                table["/etc/cni/net.d/" + EVIL[1]] = (Entry({}, json.dumps({EVIL[0]: EVIL[2]})),)
    reading.unreachable["ip-10-0-2-201"] = EVIL[1]
    source = replace(page.source, kind="lab", live=live, reading=reading, read_at=EVIL[0])
    return replace(page, source=source)


def test_markup_from_a_cluster_stays_text(show: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    # No cluster answers here: the walks are through what was read.
    monkeypatch.setattr(walks, "_live_walk", walks.foreseen_walk)
    text = html(hostile())
    driver = show(text)
    elements = run(driver, "return document.querySelectorAll('script, img, svg[onload]').length")
    click(driver, "[data-pick]", 1)
    wait_for(driver, "#panel", "ip-10-0-2-200")
    open_details(driver)
    for number in range(run(driver, "return document.querySelectorAll('#walk-choice input').length")):
        run(driver, CHOOSE_WALK, number)
        for _ in range(6):
            click(driver, "#forward")
    find = "return [...document.querySelectorAll('.wide [data-pod]')].findIndex(e => e.ariaLabel.includes('<img'))"
    click(driver, ".wide [data-pod]", run(driver, find))
    wait_for(driver, "#panel", "<img src=x onerror=")
    time.sleep(0.5)
    assert run(driver, "return window.ran ?? null") is None
    assert run(driver, "return document.querySelectorAll('script, img, svg[onload]').length") == elements
    assert EVIL[1] in text_of(driver, ".problem")


def test_the_policy_stops_what_would_run_all_the_same(chromium: webdriver.Chrome, tmp_path: Path) -> None:
    """The second lock: markup that did get in would not run."""
    path = tmp_path / "page.html"
    injected = "<script>window.ran = 1</script><img src=x onerror='window.ran = 2'><style>h1 { color: red }</style>"
    path.write_text(planned_html("cross-node").replace("<footer>", f"{injected}<footer>"), encoding="utf-8")
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    chromium.get(path.as_uri())
    time.sleep(0.5)
    assert run(chromium, "return window.ran ?? null") is None
    assert run(chromium, "return getComputedStyle(document.querySelector('h1')).color") != "rgb(255, 0, 0)"
    refused = [entry["message"] for entry in chromium.get_log("browser")]
    assert len(refused) >= 3 and all("Content Security Policy" in message for message in refused)


# --- how fast it is --------------------------------------------------------------------------------------------------


@HUNDRED_NODES
@pytest.mark.timeout(900)
def test_a_hundred_nodes_are_seen_at_once(show: Open) -> None:
    _, text = hundred_nodes()
    driver = show(text)
    paint = "return performance.getEntriesByName('first-contentful-paint')[0].startTime"
    assert run(driver, paint) < 2000
    assert run(driver, "return document.querySelectorAll('.wide [data-node]').length") == 100
    click(driver, '.wide [data-node="99"]')
    wait_for(driver, "#panel", "node-099")
