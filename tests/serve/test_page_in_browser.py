"""The page at ``/`` in Chromium: what runs, sliders that make a gate, an answer that streams."""

import json

import pytest

from geodapt.serve.http.serve_settings import ServeSettings
from geodapt.serve.http.starting import start
from geodapt.serve.served import Served
from tests.serve.asking import running
from tests.serve.browser import browser, chromium
from tests.serve.shelf import small_base, small_tokenizer, write_adapter_folders

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chromium() is None, reason="there is no Chromium here"),
]
LONG = "an-adapter-with-a-name-that-is-much-longer-than-there-is-room-for"
MOVE = """(() => {
  const slider = document.querySelector('#gate input[data-name="%s"]');
  slider.value = %s;
  slider.dispatchEvent(new Event("input", { bubbles: true }));
})()"""
WIDE = "document.documentElement.scrollWidth <= innerWidth"
HIDDEN = """[...document.querySelectorAll("main *")].filter((part) => {
  const { left, right } = part.getBoundingClientRect();
  return right > innerWidth + 1 || left < -1;
}).length"""


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shelf")
    tokenizer = small_tokenizer()
    tokenizer.save_pretrained(folder / "base")
    model = small_base(tokenizer)
    model.save_pretrained(folder / "base")
    write_adapter_folders(model, folder / "adapters", ["toys", "tools", LONG])
    named = Served(base=str(folder / "base"), adapters=folder / "adapters", dtype="float32")
    service = start(named, ServeSettings(name="small"))
    with running(service) as server:
        yield server
    service.close()


@pytest.fixture(scope="module")
def page():
    with browser() as opened:
        yield opened


def text(page, place):
    return page.ask(f"document.getElementById('{place}').textContent")


def test_sliders_make_the_gate_of_the_request_that_answers(served, page):
    page.open(f"http://127.0.0.1:{served.port}/")
    page.until("document.querySelectorAll('#gate input').length === 3")
    assert (text(page, "model"), text(page, "state")) == ("small", "ready")
    page.ask(MOVE % ("toys", 0.5) + ";" + MOVE % ("tools", -0.25))
    page.ask("document.getElementById('seed').value = 3")
    page.ask("document.getElementById('send').click()")
    page.until("document.getElementById('answer').textContent !== ''")
    page.until("document.getElementById('stop').disabled")
    body = json.loads(text(page, "request")) | {"seed": 3}
    assert body["adapters"] == {"toys": 0.5, "tools": -0.25}
    answer = served.ask("POST", "/v1/completions", body).json["choices"][0]["text"]
    assert text(page, "answer") == answer
    page.until("document.querySelector('#adapters').textContent.includes('device')")
    page.until("document.getElementById('first-token').textContent !== '–'")
    assert page.exceptions == []


def test_errors_are_told_and_atoms_are_asked_for(served, page):
    page.open(f"http://127.0.0.1:{served.port}/")
    page.until("document.querySelectorAll('#gate input').length === 3")
    page.ask(MOVE % ("toys", 1))
    page.ask("document.getElementById('atoms').click()")
    assert json.loads(text(page, "request"))["atoms"] == {"keep": 0.5}
    page.ask("document.getElementById('tokens').value = 2000")
    page.ask("document.getElementById('send').click()")
    page.until("document.getElementById('answer').classList.contains('error')")
    assert "the model reads 256 tokens" in text(page, "answer")
    page.exceptions.clear()  # the browser notes the status 400


@pytest.mark.parametrize("width", [1200, 390])
@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_and_can_be_read(served, page, width, dark):
    page.open(f"http://127.0.0.1:{served.port}/", width, dark=dark)
    page.until("document.querySelectorAll('#gate input').length === 3")
    assert page.ask(WIDE)
    assert page.ask(HIDDEN) == 0
    last = "document.querySelector('#adapters tr td:last-child').getBoundingClientRect().right"
    assert page.ask(
        f"{last} <= document.querySelector('.scroll').getBoundingClientRect().right + 1"
    )
    assert page.ask(CONTRAST) >= 4.5  # as WCAG 2.2 asks of text


CONTRAST = """(() => {
  const light = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).map(Number).map((v) => v / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (part) => {
    const colour = getComputedStyle(part).backgroundColor;
    return colour === "rgba(0, 0, 0, 0)" ? behind(part.parentElement) : colour;
  };
  const texts = document.querySelectorAll("h1, h2, label, b, .soft, td, th, #send, #state");
  return Math.min(...[...texts].map((part) => {
    const pair = [light(getComputedStyle(part).color), light(behind(part))].sort((a, b) => b - a);
    return (pair[0] + 0.05) / (pair[1] + 0.05);
  }));
})()"""
