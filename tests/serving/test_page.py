"""The page in a headless Chromium, on a real server."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from lmlab.serving.guard import Access
from serving.chromium import CHROMIUM, CONTROL, Page, browser
from serving.running import LINE, Running, Start, running

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]
DONE = "!document.querySelector('.busy') && document.querySelector('.numbers').textContent"
TEXT = "[...document.querySelectorAll('.panel')].map((p) => p.querySelector('.text').textContent)"
CONTRAST = """
(() => {
  const light = (color) => {
    const parts = color.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  };
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const color = getComputedStyle(e).backgroundColor;
      if (!/, 0\\)$/.test(color)) return color;
    }
    return "rgb(255, 255, 255)";
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!own || !element.getClientRects().length || element.matches(":disabled, :disabled *")) {
      continue;
    }
    const [a, b] = [getComputedStyle(element).color, behind(element)].map(light);
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found.push([element.className, element.textContent.slice(0, 20), ratio]);
  }
  return found;
})()
"""
UNNAMED = """
[...document.querySelectorAll("input, select, textarea, button")]
  .filter((e) => e.getClientRects().length)
  .filter((e) => !(e.labels?.length || e.ariaLabel || e.textContent.trim()))
  .map((e) => e.outerHTML)
"""


@pytest.fixture(scope="module")
def two(trained: Path) -> Iterator[Running]:
    older = min((trained / "checkpoints").glob("step_*.pt"))
    with running([trained, older]) as it:
        yield it


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("profile") / "chromium") as page:
        yield page


@pytest.fixture
def page(chromium: Page) -> Iterator[Page]:
    """The browser's page; its console must say nothing."""
    chromium.log.clear()
    yield chromium
    assert chromium.log == []


def write(page: Page, prompt: str, **values: float) -> None:
    """Generate from a prompt, by keyboard."""
    for name, value in ({"temperature": 0, "max_tokens": 40} | values).items():
        page.run(f"document.getElementById('{name}').value = {value}")
    page.run(f"document.getElementById('prompt').value = {json.dumps(prompt)}")
    page.press("Enter", CONTROL)


def test_text_is_what_the_interface_answers(page: Page, served: Running) -> None:
    """Mark-up stays text, and characters of several tokens are whole."""
    page.open(served.url)
    write(page, "<scr", max_tokens=38)
    page.wait(DONE)
    body = {"prompt": "<scr", "max_tokens": 38, "temperature": 0}
    answer = httpx.post(f"{served.url}/v1/completions", json=body).json()
    (text,) = page.run(TEXT)
    assert text == "<scr" + answer["choices"][0]["text"]
    assert text.startswith(LINE.strip()[:30])
    assert page.run("document.querySelectorAll('.text script').length") == 0
    shown = page.run("[...document.querySelectorAll('.t')].map((t) => t.textContent)")
    assert {"é", "€", "😀"} <= set(shown)
    assert "\N{REPLACEMENT CHARACTER}" not in "".join(shown)
    assert "38 tokens" in page.run("document.querySelector('.numbers').textContent")


def test_mark_up_in_the_prompt_and_in_alternatives(page: Page, served: Running) -> None:
    page.open(served.url)
    write(page, "<img src=x onerror=alert(1)>", max_tokens=3)
    page.wait(DONE)
    assert page.run("document.querySelectorAll('main img').length") == 0
    assert page.run(TEXT)[0].startswith("<img src=x onerror=alert(1)>")
    page.hover(".t:nth-child(2)")
    page.wait("!document.getElementById('card').hidden")
    assert "i" in page.run("document.querySelector('#card h2').textContent")


def test_alternatives_on_hover(page: Page, served: Running) -> None:
    page.open(served.url)
    write(page, "<scr")
    page.wait(DONE)
    page.hover(".t:nth-child(6)")
    page.wait("!document.getElementById('card').hidden")
    body = {"prompt": "<scrip"[:5], "max_tokens": 1, "temperature": 0, "logprobs": 8}
    told = httpx.post(f"{served.url}/v1/completions", json=body).json()["choices"][0]["logprobs"]
    names = page.run("[...document.querySelectorAll('#card .row code')].map((c) => c.textContent)")
    assert names[0] == told["tokens"][0] == "p"
    assert len(names) == 8
    widths = page.run("[...document.querySelectorAll('#card .row i')].map((i) => i.offsetWidth)")
    assert widths == sorted(widths, reverse=True)
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=2, y=2)
    page.wait("document.getElementById('card').hidden")


def test_pieces_of_a_character_are_explained(page: Page, served: Running) -> None:
    page.open(served.url)
    write(page, "x€")
    page.wait(DONE)
    page.hover(".t:nth-child(2)")
    page.wait("document.querySelectorAll('#card h2').length === 3")
    titles = page.run("[...document.querySelectorAll('#card h2')].map((h) => h.textContent)")
    assert titles == [
        "€: token 1 of 3, E2 (bytes)", "€: token 2 of 3, 82 (bytes)", "€: token 3 of 3, AC (bytes)",
    ]  # fmt: skip


def test_keyboard(page: Page, served: Running) -> None:
    page.open(served.url)
    page.press("/")
    assert page.run("document.activeElement.id") == "prompt"
    write(page, "<scr")
    page.wait(DONE)
    page.run("document.querySelector('.text').focus()")
    for _ in range(3):
        page.press("ArrowRight")
    page.press("ArrowLeft")
    assert page.run("document.querySelector('.chosen').dataset.index") == "1"
    assert "bits" in page.run("document.getElementById('status').textContent")
    page.press("Tab")
    assert page.run("document.activeElement.closest('#card') !== null")
    page.press("Escape")
    assert page.run("document.getElementById('card').hidden")
    assert page.run("document.activeElement.className") == "text"


def test_another_token_is_continued(page: Page, served: Running) -> None:
    page.open(served.url)
    write(page, "<scr", max_tokens=10)
    page.wait(DONE)
    page.click(".t:nth-child(6)")
    page.wait("!document.getElementById('card').hidden")
    other = page.run("document.querySelector('#card button:not(:disabled) code').textContent")
    page.click("#card button:not(:disabled)")
    page.wait(f"document.getElementById('prompt').value !== '<scr' && {DONE}")
    prompt = page.run("document.getElementById('prompt').value")
    assert prompt.startswith("<scri")
    assert len(prompt) == 6
    assert page.run(TEXT)[0].startswith(prompt)
    assert other


def test_stop(page: Page, start: Start) -> None:
    it = start()
    page.open(it.url)
    with it.paused():
        write(page, "<scr", max_tokens=100)
        page.wait("document.querySelector('.busy')")
        assert not page.run("document.getElementById('stop').disabled")
        page.press("Escape")
        page.wait(DONE)
    assert "stopped" in page.run("document.querySelector('.numbers').textContent")
    it.wait_until_free()


def test_side_by_side(page: Page, two: Running) -> None:
    page.open(two.url)
    assert page.run("[...document.querySelectorAll('select')].map((s) => s.value)") == [
        "lines@120", "lines@60",
    ]  # fmt: skip
    write(page, "<scr")
    page.wait(DONE)
    page.wait("[...document.querySelectorAll('.numbers')].every((n) => n.textContent)")
    new, old = page.run(TEXT)
    for name, text in (("lines@120", new), ("lines@60", old)):
        body = {"model": name, "prompt": "<scr", "max_tokens": 40, "temperature": 0}
        answer = httpx.post(f"{two.url}/v1/completions", json=body).json()
        assert text == "<scr" + answer["choices"][0]["text"]
    page.run("document.getElementById('compare').click()")
    assert page.run("document.querySelectorAll('.panel').length") == 1


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 768, 1280])
def test_it_can_be_read(page: Page, two: Running, width: int, dark: bool) -> None:
    """Nothing is wider than the page; text has contrast; controls have names."""
    page.open(two.url, width, 800, dark)
    write(page, "some other text, quite surprising", temperature=1.5)
    page.wait(DONE)
    page.click(".t:nth-child(8)")
    page.wait("!document.getElementById('card').hidden")
    assert page.run("document.documentElement.scrollWidth") <= width
    box = "document.getElementById('card').getBoundingClientRect()"
    assert page.run(f"{box}.left >= 0 && {box}.right <= {width} && {box}.bottom <= 800")
    assert page.run(CONTRAST) == []
    assert page.run(UNNAMED) == []


def test_an_error_is_shown(chromium: Page, served: Running) -> None:
    chromium.open(served.url)
    write(chromium, "a" * 200)
    chromium.wait("!document.querySelector('.error').hidden")
    text = chromium.run("document.querySelector('.error').textContent")
    assert "maximum context length is 128 tokens" in text


def test_a_key_is_asked_for(chromium: Page, start: Start) -> None:
    it = start(access=Access.of("127.0.0.1", key="k"))
    chromium.resize(1280, 900)
    chromium.call("Page.navigate", url=it.url)
    chromium.wait("document.getElementById('key-row')?.hidden === false")
    chromium.run(
        "document.getElementById('key').value = 'k';"
        "document.getElementById('key').dispatchEvent(new Event('change'))"
    )
    chromium.wait("document.querySelector('.panel') !== null")


def test_the_page_loads_nothing_from_elsewhere(served: Running) -> None:
    answer = httpx.get(served.url)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
