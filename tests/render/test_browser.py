"""The pages as a browser shows them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mnist_tuner.render.figures import draw
from mnist_tuner.render.html import page as page_of
from tests.support import samples

pytestmark = pytest.mark.slow

REPORTS: dict[str, Callable[[], Any]] = {
    "run": samples.run,
    "seeds": samples.seeds,
    "search": samples.search,
    "comparison": samples.comparison,
    "hostile": lambda: samples.comparison(2, 2, (samples.HOSTILE * 4, "x" * 300)),
}
QUIET = ["gpu", "quic", "background-networking", "component-update", "sync", "dev-shm-usage"]
AA = 4.5
"""The least contrast of text by WCAG 2, level AA."""

LABELS = """() => {
  const colour = text => {
    const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number);
    return [r, g, b, a];
  };
  const over = (top, ground) => [0, 1, 2].map(i => top[i] * top[3] + ground[i] * (1 - top[3]));
  const found = [];
  for (const svg of document.querySelectorAll("svg")) {
    const shapes = [...svg.querySelectorAll("path, rect, text")].filter(each => !each.closest("defs"));
    const paper = colour(getComputedStyle(svg.closest("figure")).backgroundColor);
    for (const [number, text] of shapes.entries()) {
      if (text.tagName !== "text") continue;
      const box = text.getBoundingClientRect();
      let ground = paper;
      for (const shape of shapes.slice(0, number)) {
        if (shape.tagName === "text") continue;
        const style = getComputedStyle(shape);
        if (style.fill === "none") continue;
        const middle = new DOMPoint(box.x + box.width / 2, box.y + box.height / 2);
        if (!shape.isPointInFill(middle.matrixTransform(shape.getScreenCTM().inverse()))) continue;
        const top = colour(style.fill);
        top[3] *= style.fillOpacity * style.opacity;
        ground = over(top, ground);
      }
      found.push({text: text.textContent, ink: colour(getComputedStyle(text).fill).slice(0, 3), ground: ground.slice(0, 3)});
    }
  }
  return found;
}"""


def missing(reason: str) -> None:
    """Skips, or fails where a browser has been asked for."""
    reason += ": apt install chromium; pip install playwright axe-playwright-python"
    if os.environ.get("MNIST_TUNER_CHROMIUM") == "required":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, started once for the whole file."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        missing("no Chromium is installed")
    try:
        import axe_playwright_python  # noqa: F401
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("playwright or axe-playwright-python is not installed")
    options = [f"--disable-{name}" for name in QUIET] + ["--no-first-run"]
    if os.geteuid() == 0:  # Chromium's sandbox is not for root
        options.append("--no-sandbox")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=options)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each page, as a file."""
    folder = tmp_path_factory.mktemp("pages")
    paths = {}
    for name, make in REPORTS.items():
        report = make()
        test = getattr(report, "test", None)
        images = None if test is None else samples.pictures(test)
        paths[name] = folder / f"{name}.html"
        paths[name].write_text(
            page_of(report, mistakes=images, drawings=draw(report), command="mnist-tuner train"), encoding="utf-8"
        )
    return paths


def luminance(colour: list[float]) -> float:
    """Relative luminance, as WCAG 2 defines it, of red, green and blue from 0 to 255."""
    parts = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def contrast(one: list[float], other: list[float]) -> float:
    """From 1, no contrast, to 21."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.fixture(scope="module")
def show(browser: Any, files: dict[str, Path]) -> Iterator[Callable[..., tuple[Any, list[str]]]]:
    """Opens a page, once; gives it with its errors and what it has asked for besides itself."""
    opened: dict[tuple[str, str], tuple[Any, list[str]]] = {}

    def open_page(name: str, scheme: str = "light", width: int = 1280) -> tuple[Any, list[str]]:
        if (name, scheme) not in opened:
            shown = browser.new_context(color_scheme=scheme).new_page()
            address, problems = files[name].as_uri(), []
            shown.on("console", lambda message: problems.append(f"console: {message.text}"))
            shown.on("pageerror", lambda error: problems.append(f"error: {error}"))
            shown.on("request", lambda request: problems.append(request.url))
            shown.goto(address)
            shown.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
            problems[:] = [each for each in problems if each != address and not each.startswith("data:")]
            opened[name, scheme] = shown, problems
        shown, problems = opened[name, scheme]
        shown.set_viewport_size({"width": width, "height": 900})
        return shown, problems

    yield open_page
    for shown, _ in opened.values():
        shown.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", REPORTS)
def test_everybody_can_read_it(show: Callable[..., tuple[Any, list[str]]], name: str, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    shown, problems = show(name, scheme)
    ground = shown.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(245, 246, 248)") == (scheme == "light")
    found = Axe().run(shown, options={"resultTypes": ["violations"]}).response["violations"]
    assert not [(each["id"], [node["html"][:200] for node in each["nodes"][:3]]) for each in found]
    labels = shown.evaluate(LABELS)
    assert len(labels) > 10
    assert not [label for label in labels if contrast(label["ink"], label["ground"]) < AA]
    for picture in shown.query_selector_all("img"):
        assert picture.get_attribute("alt")
        assert picture.evaluate("image => image.naturalWidth") > 0
    assert not problems


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", REPORTS)
def test_it_fits_a_telephone_and_a_screen(show: Callable[..., tuple[Any, list[str]]], name: str, width: int) -> None:
    shown, _ = show(name, width=width)
    assert shown.evaluate("document.documentElement.scrollWidth <= innerWidth")
    smallest = shown.evaluate(
        "Math.min(...[...document.querySelectorAll('svg text')].map(text => "
        "parseFloat(getComputedStyle(text).fontSize) * Math.hypot(text.getScreenCTM().a, text.getScreenCTM().b)))"
    )
    assert smallest > 6.5


@pytest.mark.parametrize("name", REPORTS)
def test_figures_stay_within_their_frames(show: Callable[..., tuple[Any, list[str]]], name: str) -> None:
    outside = show(name)[0].evaluate(
        """() => [...document.querySelectorAll("svg")].flatMap(svg => {
          const frame = svg.getBoundingClientRect();
          return [...svg.querySelectorAll("text")].filter(text => {
            const box = text.getBoundingClientRect();
            const across = box.left < frame.left - 1 || box.right > frame.right + 1;
            return across || box.top < frame.top - 1 || box.bottom > frame.bottom + 1;
          }).map(text => text.textContent);
        })"""
    )
    assert not outside


@pytest.mark.parametrize("name", ["run", "search"])
def test_it_prints_whole_and_in_light_colours(show: Callable[..., tuple[Any, list[str]]], name: str) -> None:
    shown, _ = show(name, "dark", width=680)  # A4 without its margins
    assert shown.pdf(format="A4", print_background=True).startswith(b"%PDF-")
    shown.emulate_media(media="print")
    assert shown.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert luminance(shown.evaluate("getComputedStyle(document.body).color.match(/\\d+/g).map(Number)")) < 0.1
    assert shown.evaluate("document.documentElement.scrollWidth <= innerWidth")
    shown.emulate_media(media="screen")
