import base64
import dataclasses
import json
import re
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from swise_bench.prediction.roofline import device_from_target, predict
from swise_bench.reports.page import page_from_benchmark
from swise_bench.reports.showcase import Showcase, make_showcase
from swise_bench.results.host import Quietness
from swise_bench.results.values import Benchmark
from swise_deploy.runner import upscale
from swise_engines.targets.catalogue import find_target
from swise_export.counting import count_onnx
from swise_export.runtimes.onnxruntime import OnnxRunner


@pytest.fixture(scope="module")
def showcase(nearest: Path, blurred: Path, pictures: Path) -> Showcase:
    with OnnxRunner(nearest) as sharp, OnnxRunner(blurred) as soft:
        subjects = {"nearest": partial(upscale, sharp), "blurred": partial(upscale, soft)}
        return make_showcase(pictures / "first.png", 2, subjects, side=32)


@pytest.fixture(scope="module")
def page(benchmark_run: Benchmark, showcase: Showcase, nearest: Path) -> str:
    device = device_from_target(find_target("jetson-orin-nano"))
    prediction = predict("nearest", count_onnx(nearest), device, precision="fp16")
    assert prediction is not None
    return page_from_benchmark(
        _quiet(benchmark_run), showcases=[showcase] * 5, predictions=[prediction]
    )


def _quiet(benchmark: Benchmark) -> Benchmark:
    """The same as if the machine had been quiet: the fastest is named then."""
    return dataclasses.replace(benchmark, quietness=Quietness(0.0, 0.1, throttled=False))


class _Balance(HTMLParser):
    """Fails on tags that do not close in order."""

    VOID = frozenset({"meta", "link", "img", "input", "br", "hr"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [str(value) for key, value in attrs if key == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Self-closed SVG elements open nothing."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_well_formed(page: str) -> None:
    balance = _Balance()
    balance.feed(page)
    assert balance.open == []
    assert len(balance.ids) == len(set(balance.ids))


def test_nothing_is_loaded_from_anywhere(page: str) -> None:
    assert re.findall(r"""(?:src|href)=["'](?!data:|#)""", page) == []
    assert "@import" not in page
    assert "url(" not in page


def test_names_from_outside_are_escaped(benchmark_run: Benchmark) -> None:
    evil = dataclasses.replace(benchmark_run, command="<script>alert(1)</script>")
    assert "<script>alert" not in page_from_benchmark(evil)


def test_empty_sections_are_not_shown(benchmark_run: Benchmark) -> None:
    page = page_from_benchmark(benchmark_run)
    assert 'id="verdict"' in page
    assert 'id="pictures"' not in page
    assert 'id="prediction"' not in page
    assert "not asked for" not in page.partition("<details")[0]


def test_a_warning_stands_there_once(benchmark_run: Benchmark) -> None:
    noisy = dataclasses.replace(benchmark_run, quietness=Quietness(0.93, 24.0, throttled=False))
    page = page_from_benchmark(noisy)
    assert page.count("93% of the processors") == 1
    assert "fastest</span>" not in page


def test_the_page_names_no_folder_of_this_machine(benchmark_run: Benchmark, page: str) -> None:
    for subject in benchmark_run.subjects:
        folder = str(Path(subject.name).parent)
        assert folder not in page
        assert Path(subject.name).name in page


class _Browser:
    """A headless Chromium through the WebDriver protocol (W3C)."""

    def __init__(self, port: int, profile: Path) -> None:
        self._base = f"http://127.0.0.1:{port}"
        arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-sync",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-dev-shm-usage",
        ]
        options = {"args": [*arguments, f"--user-data-dir={profile}"]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        body = {"capabilities": {"alwaysMatch": wanted}}
        self._session = f"/session/{self._call('POST', '/session', body)['sessionId']}"

    def _call(self, method: str, path: str, body: object = None) -> Any:
        data = json.dumps(body if body is not None else {}).encode() if method == "POST" else None
        request = urllib.request.Request(self._base + path, data, method=method)  # noqa: S310  # ours
        with urllib.request.urlopen(request, timeout=60) as reply:  # noqa: S310  # the same
            return json.loads(reply.read())["value"]

    def open(self, url: str) -> None:
        self._call("POST", f"{self._session}/url", {"url": url})

    def run(self, script: str) -> Any:
        body = {"script": script, "args": []}
        return self._call("POST", f"{self._session}/execute/sync", body)

    def resize(self, width: int, height: int) -> None:
        size = {"width": width, "height": height}
        self._call("POST", f"{self._session}/window/rect", size)

    def emulate(self, width: int, height: int) -> None:
        """A screen of this size, smaller than any window that Chromium makes."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": True}
        self._cdp("Emulation.setDeviceMetricsOverride", metrics)

    def stop_emulating(self) -> None:
        self._cdp("Emulation.clearDeviceMetricsOverride", {})

    def media(self, name: str) -> None:
        """Show the page as printed ("print") or as ever ("")."""
        self._cdp("Emulation.setEmulatedMedia", {"media": name})

    def prefer(self, scheme: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._cdp("Emulation.setEmulatedMedia", {"features": features})

    def _cdp(self, command: str, parameters: dict[str, Any]) -> None:
        body = {"cmd": command, "params": parameters}
        self._call("POST", f"{self._session}/goog/cdp/execute", body)

    def click(self, selector: str) -> None:
        found = {"using": "css selector", "value": selector}
        (element,) = self._call("POST", f"{self._session}/element", found).values()
        self._call("POST", f"{self._session}/element/{element}/click")

    def press(self, *keys: str) -> None:
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        source = {"type": "key", "id": "keyboard", "actions": actions}
        self._call("POST", f"{self._session}/actions", {"actions": [source]})

    def screenshot(self) -> bytes:
        return base64.b64decode(self._call("GET", f"{self._session}/screenshot"))

    def complaints(self) -> list[str]:
        entries = self._call("POST", f"{self._session}/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] in ("SEVERE", "WARNING")]

    def quit(self) -> None:
        self._call("DELETE", self._session)


ARROW_RIGHT, TAB, ENTER = "\ue014", "\ue004", "\ue007"


@pytest.fixture(scope="module")
def browser(page: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Browser]:
    driver = shutil.which("chromedriver")
    if driver is None or shutil.which("chromium") is None:
        pytest.skip("needs chromium and chromedriver (Debian: chromium, chromium-driver)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("browser")
    process = subprocess.Popen(
        [driver, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        browser = _Browser(port, folder / "profile")
        path = folder / "report.html"
        path.write_text(page, encoding="utf-8")
        browser.resize(1100, 900)
        browser.open(path.as_uri())
        yield browser
        browser.quit()
    finally:
        process.terminate()
        process.wait(timeout=20)


def test_the_page_opens_without_complaint_and_asks_for_nothing(browser: _Browser) -> None:
    assert browser.complaints() == []
    fetched = browser.run(
        "return performance.getEntriesByType('resource').map(e => e.name)"
        ".filter(name => !name.startsWith('data:'))"
    )
    assert fetched == []
    assert browser.run("return document.querySelectorAll('svg').length") >= 4


def test_a_heading_sorts_its_table_both_ways(browser: _Browser) -> None:
    column = (
        "return [...document.querySelectorAll('table.sortable')[0].tBodies[0].rows]"
        ".map(row => parseFloat(row.cells[2].textContent))"
    )
    browser.run("document.getElementById('latency').open = true")
    button = "table.sortable thead th:nth-child(3) button"
    browser.click(button)
    assert browser.run(column) == [1, 1, 2, 2]
    browser.click(button)
    assert browser.run(column) == [2, 2, 1, 1]


def test_the_slider_obeys_the_keyboard(browser: _Browser) -> None:
    cut = "return getComputedStyle(document.querySelector('.slider')).getPropertyValue('--cut')"
    browser.run("document.querySelector('.slider input').focus()")
    before = browser.run(cut)
    browser.press(ARROW_RIGHT, ARROW_RIGHT, ARROW_RIGHT)
    assert (before, browser.run(cut)) == ("50%", "53%")


def test_choosing_a_method_changes_the_picture(browser: _Browser) -> None:
    source = "return document.querySelector('.slider .after').src"
    before = browser.run(source)
    browser.run(
        "const s = document.querySelector('.choose-after'); s.value = '1';"
        "s.dispatchEvent(new Event('change'))"
    )
    assert browser.run(source) != before


def test_the_button_switches_to_dark_and_back(browser: _Browser) -> None:
    colour = "return getComputedStyle(document.body).backgroundColor"
    assert browser.run(colour) == "rgb(255, 255, 255)"
    browser.run("document.getElementById('mode').focus()")
    browser.press(ENTER)
    assert browser.run(colour) == "rgb(18, 21, 26)"
    browser.press(ENTER)
    assert browser.run(colour) == "rgb(255, 255, 255)"


def test_the_keyboard_reaches_every_control(browser: _Browser) -> None:
    browser.run("document.activeElement.blur(); window.scrollTo(0, 0)")
    seen = set()
    for _ in range(90):
        browser.press(TAB)
        seen.add(browser.run("return document.activeElement.outerHTML.slice(0, 40)"))
    assert any('id="mode"' in element for element in seen)
    assert any("<select" in element for element in seen)
    assert any("<input" in element for element in seen)


_VISIBLE = (
    "const box = document.querySelector('{selector}').getBoundingClientRect();"
    "return box.width > 0 && box.bottom <= window.innerHeight && box.right <= window.innerWidth"
)
_OVERFLOW = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
_SMALLEST_TEXT = (
    "return Math.min(...[...document.querySelectorAll('#verdict *, .narrow svg text')]"
    ".filter(e => e.textContent.trim() && e.getClientRects().length).map(e => "
    "parseFloat(getComputedStyle(e).fontSize) * "
    "(e.ownerSVGElement ? e.ownerSVGElement.getBoundingClientRect().width / "
    "e.ownerSVGElement.viewBox.baseVal.width : 1)))"
)
_FOLD = "document.querySelectorAll('main > details').forEach(d => { d.open = false; })"
_UNFOLD = "document.querySelectorAll('details').forEach(d => { d.open = true; })"


@pytest.mark.parametrize("size", [(1400, 900), (390, 844)])
def test_the_first_screen_holds_the_verdict_and_its_bars(
    browser: _Browser, size: tuple[int, int]
) -> None:
    browser.emulate(*size)
    try:
        browser.run("window.scrollTo(0, 0)")
        assert browser.run(_VISIBLE.format(selector=".headline"))
        assert browser.run(_VISIBLE.format(selector=".verdicts li:nth-child(2) .bar .fill"))
        assert browser.run(_VISIBLE.format(selector=".verdicts li:nth-child(2) .words"))
        assert browser.run(_OVERFLOW) <= 0
        assert browser.run(_SMALLEST_TEXT) >= 11
    finally:
        browser.stop_emulating()


@pytest.mark.parametrize("size", [(1400, 900), (390, 844)])
def test_nothing_overflows_with_everything_unfolded(
    browser: _Browser, size: tuple[int, int]
) -> None:
    browser.emulate(*size)
    try:
        browser.run(_UNFOLD)
        assert browser.run(_OVERFLOW) <= 0
    finally:
        browser.run(_FOLD)
        browser.stop_emulating()


def test_thirty_subjects_fit_the_first_screen(
    browser: _Browser, benchmark_run: Benchmark, tmp_path: Path
) -> None:
    path = tmp_path / "many.html"
    path.write_text(page_from_benchmark(_of_many(_quiet(benchmark_run), 30)), encoding="utf-8")
    here = browser.run("return location.href")
    browser.emulate(1400, 900)
    try:
        browser.open(path.as_uri())
        assert browser.run("return document.querySelectorAll('.verdicts li').length") == 30
        assert browser.run(_VISIBLE.format(selector=".verdicts li:nth-child(30) .bar"))
        assert browser.run(_OVERFLOW) <= 0
        browser.emulate(390, 844)
        assert browser.run(_VISIBLE.format(selector=".verdicts li:nth-child(3) .bar .fill"))
        assert browser.run(_OVERFLOW) <= 0
    finally:
        browser.stop_emulating()
        browser.open(here)


def _of_many(benchmark: Benchmark, number: int) -> Benchmark:
    first = benchmark.subjects[0]
    names = [f"/models/network_{n:02d}_x2_int8.onnx@openvino" for n in range(number)]
    ratio = benchmark.ratios[0]
    return dataclasses.replace(
        benchmark,
        subjects=tuple(dataclasses.replace(first, name=name) for name in names),
        ratios=tuple(
            dataclasses.replace(ratio, subject=name, reference=names[0]) for name in names[1:]
        ),
    )


def test_no_text_of_the_plot_lies_on_another(browser: _Browser) -> None:
    overlaps = (
        "const boxes = [...document.querySelectorAll('#tradeoff .wide svg g > text')]"
        ".map(e => e.getBoundingClientRect()); let n = 0;"
        "boxes.forEach((a, i) => boxes.slice(i + 1).forEach(b => { if (a.left < b.right && "
        "b.left < a.right && a.top < b.bottom - 2 && b.top < a.bottom - 2) n += 1; })); return n"
    )
    assert browser.run(overlaps) == 0


def test_the_printed_page_shows_what_is_folded_and_no_buttons(browser: _Browser) -> None:
    browser.media("print")
    try:
        shown = "return getComputedStyle(document.getElementById('mode')).display"
        assert browser.run(shown) == "none"
        height = "return document.querySelector('#machine dl').getBoundingClientRect().height"
        assert browser.run(height) > 50
    finally:
        browser.media("")


def test_a_dark_system_gets_a_dark_page(browser: _Browser) -> None:
    browser.prefer("dark")
    try:
        colour = "return getComputedStyle(document.body).backgroundColor"
        assert browser.run(colour) == "rgb(18, 21, 26)"
    finally:
        browser.prefer("light")
