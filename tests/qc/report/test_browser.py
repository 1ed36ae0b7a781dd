"""The report in a real browser, from a file and without a network."""

from __future__ import annotations

import base64
import io
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
QUIET = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--window-size=1200,900", "--force-device-scale-factor=1"),
)

pytestmark = pytest.mark.skipif(not (BROWSER and DRIVER), reason="needs chromium and chromedriver")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    for argument in QUIET:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser: Any, finished: Path) -> Iterator[Any]:
    browser.get((finished / "report.html").as_uri())
    yield browser
    assert browser.get_log("browser") == []


def first(page: Any, css: str) -> Any:
    """An element of the first case, which is shown slice by slice, scrolled to."""
    element = page.find_element(By.CSS_SELECTOR, f".case {css}")
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    return element


def seen(element: Any) -> np.ndarray:
    """What an element looks like."""
    return np.asarray(Image.open(io.BytesIO(element.screenshot_as_png)).convert("RGB")).astype(int)


def grey(element: Any) -> np.ndarray:
    """The picture of a view without its outlines."""
    element.parent.execute_script("arguments[0].closest('.case').classList.add('plain')", element)
    return seen(element)


def test_opens_from_a_file_without_a_word_in_the_console(page: Any) -> None:
    assert page.title == "expanded: lesionsynth report"
    assert page.find_element(By.ID, "h-summary").text == "Summary"
    broken = "return [...document.images].filter(i => !i.complete || !i.naturalWidth).length"
    assert page.execute_script(broken) == 0
    loaded = "return performance.getEntriesByType('resource').filter(r => !r.name.startsWith('data:')).length"
    assert page.execute_script(loaded) == 0


def test_the_slider_shows_the_host_from_the_left(page: Any) -> None:
    view, slider = first(page, ".stack .view"), first(page, ".compare")
    copy = grey(view)
    slider.send_keys(Keys.END)
    host = grey(view)
    changed = np.abs(host - copy).max(axis=2) > 40
    assert 50 < changed.sum() < 0.2 * changed.size
    slider.send_keys(Keys.HOME)
    assert np.array_equal(grey(view), copy)
    page.execute_script("arguments[0].value = 50; arguments[0].dispatchEvent(new Event('input'))", slider)
    half, middle = grey(view), copy.shape[1] // 2
    assert np.array_equal(half[:, : middle - 3], host[:, : middle - 3])
    assert np.array_equal(half[:, middle + 3 :], copy[:, middle + 3 :])
    slider.send_keys(Keys.ARROW_RIGHT)
    assert slider.get_attribute("value") == "51"


def test_dragging_over_the_picture_does_the_same(page: Any) -> None:
    view, slider = first(page, ".stack .view"), first(page, ".compare")
    ActionChains(page).move_to_element(view).click_and_hold().move_by_offset(40, 0).release().perform()
    width = view.size["width"]
    assert float(slider.get_attribute("value")) == pytest.approx(100 * (width / 2 + 40) / width, abs=1)


def test_flicker_takes_turns_until_it_is_stopped(page: Any) -> None:
    view, button = first(page, ".stack .view"), first(page, ".flicker")
    copy = grey(view)
    button.send_keys(Keys.SPACE)
    assert button.get_attribute("aria-pressed") == "true"
    states = set()
    for _ in range(25):
        states.add(grey(view).tobytes())
        time.sleep(0.06)
    assert len(states) == 2
    button.send_keys(Keys.SPACE)
    assert button.get_attribute("aria-pressed") == "false"
    assert np.array_equal(grey(view), copy)


def test_outlines_come_and_go(page: Any) -> None:
    view, box = first(page, ".stack .view"), first(page, ".outlined")

    def orange() -> int:
        return int((np.abs(seen(view) - (230, 159, 0)).max(axis=2) < 30).sum())

    assert orange() > 30
    box.send_keys(Keys.SPACE)
    assert orange() == 0
    box.send_keys(Keys.SPACE)
    assert orange() > 30


def test_slices_are_scrolled_by_keys_and_by_the_wheel(page: Any) -> None:
    view, slider = first(page, ".stack .view"), first(page, ".slice")
    number, path = first(page, ".slice-number"), ".stack path.kept"
    start, count = int(slider.get_attribute("value")), int(slider.get_attribute("max"))
    before = seen(view)
    slider.send_keys(Keys.ARROW_RIGHT)
    assert number.text == f"{start + 1} of {count}"
    after = seen(view)
    assert not np.array_equal(before, after)
    slider.send_keys(Keys.ARROW_LEFT)
    assert np.array_equal(seen(view), before)
    slider.send_keys(Keys.END)
    shown = view.get_property("dataset")["outlines"]
    assert number.text == f"{count} of {count}"
    page.execute_script(
        "arguments[0].dispatchEvent(new WheelEvent('wheel', {deltaY: -9, cancelable: true}))", view
    )
    assert number.text == f"{count - 1} of {count}"
    goes_on = "const e = new WheelEvent('wheel', {deltaY: 9, cancelable: true}); "
    goes_on += "arguments[0].dispatchEvent(e); return e.defaultPrevented"
    assert page.execute_script(goes_on, view) is True
    assert page.execute_script(goes_on, view) is False  # at the end the page scrolls on
    slider.send_keys(Keys.ARROW_LEFT)
    assert page.execute_script("return JSON.parse(arguments[0])[arguments[1]][0]", shown, count - 2) == (
        first(page, path).get_attribute("d")
    )


def test_every_control_has_a_name_and_takes_the_keyboard(page: Any) -> None:
    for control in page.find_elements(By.CSS_SELECTOR, "input, button"):
        assert control.accessible_name
    page.execute_script("document.activeElement.blur()")
    ActionChains(page).send_keys(Keys.TAB).perform()
    assert page.switch_to.active_element.text == "Skip to the summary"
    assert all(image.accessible_name for image in page.find_elements(By.CSS_SELECTOR, "svg.chart"))


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_light_and_dark(page: Any, scheme: str, dark: bool) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    ground = page.find_element(By.TAG_NAME, "body").value_of_css_property("background-color")
    ink = page.find_element(By.TAG_NAME, "body").value_of_css_property("color")
    levels = [sum(map(int, c.partition("(")[2].split(",")[:3])) for c in (ground, ink)]
    assert (levels[0] < levels[1]) == dark
    assert abs(levels[0] - levels[1]) > 500
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_prints_without_controls(page: Any) -> None:
    pdf = base64.b64decode(page.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"])
    assert pdf.startswith(b"%PDF")
    assert pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page ") + pdf.count(b"/Type /Page/") >= 3
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    page.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert page.find_elements(By.CSS_SELECTOR, "details:not([open])") == []
    page.execute_script("dispatchEvent(new Event('afterprint'))")
    assert len(page.find_elements(By.CSS_SELECTOR, "details:not([open])")) > 3
    for css in ("nav", ".controls"):
        assert page.find_element(By.CSS_SELECTOR, css).value_of_css_property("display") == "none"
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_the_sections_stay_in_reach(page: Any) -> None:
    nav = page.find_element(By.CSS_SELECTOR, "nav")
    nav.find_element(By.LINK_TEXT, "Methods").click()
    time.sleep(0.2)
    top = page.execute_script("return arguments[0].getBoundingClientRect().top", nav)
    heading = page.find_element(By.ID, "h-methods")
    under = page.execute_script("return arguments[0].getBoundingClientRect().top", heading)
    assert top == 0
    assert nav.size["height"] <= under < 900


@pytest.mark.parametrize("width", [420, 1200])
def test_fits_the_window(page: Any, width: int) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    wide = page.execute_script("return document.documentElement.scrollWidth - window.innerWidth")
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert wide <= 0


def test_names_run_nothing(browser: Any, evil: Path) -> None:
    browser.get((evil / "report.html").as_uri())
    time.sleep(0.2)
    assert browser.execute_script("return window.hacked") is None
    assert browser.get_log("browser") == []
