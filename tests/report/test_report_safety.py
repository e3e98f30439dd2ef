"""Names are text: nothing that an item is called becomes markup, script or colour."""

import html
import re
from pathlib import Path

from html_page import read_html
from hypothesis import given as samples
from hypothesis import settings
from hypothesis import strategies as st
from invented_run import log_lines, ranking_results

import geodapt.pages
from geodapt.pages.rendering import templates
from geodapt.pages.section import RunRecord
from geodapt.report.page import render
from geodapt.xcross.report.predictions import predictions_section

HOSTILE = "</script><script>alert('x')</script> & <b>\"bold\"</b> {{ 7 * 7 }} <!--"
CSS = (Path(geodapt.pages.__file__).parent / "templates" / "style.css").read_text()


def test_hostile_names_everywhere_stay_text():
    results = ranking_results()
    results |= {"title": HOSTILE, "base": HOSTILE, "target": HOSTILE, "sources": [HOSTILE] * 2}
    results["rows"][0] |= {"method": HOSTILE, "label": HOSTILE}
    results["curve"].append({"method": HOSTILE, "fraction": 0.5, "hit_at_1": 0.3})
    results["contributions"]["streams"][0] = HOSTILE
    results["examples"][0]["history"][0] = HOSTILE
    results["examples"][0]["candidates"][0]["name"] = HOSTILE
    results |= {"device": HOSTILE, "versions": {HOSTILE: HOSTILE}}
    lines = [{**line, "stage": HOSTILE, f"validation_{HOSTILE}": 1.0} for line in log_lines()]
    page = read_html(render(RunRecord(results, lines, f"title: {HOSTILE}\n")))
    shown = " ".join(HOSTILE.split())

    assert page.all("h1")[0].text == page.all("title")[0].text == shown
    scripts = [script for script in page.all("script") if "type" not in script.attributes]
    assert len(scripts) == 1  # the page's own; plotly stands there packed
    assert not page.all("b")
    assert page.section("Comparison").table[1][0] == shown
    assert page.all("ol", class_="history")[0].all("li")[0].text == shown
    assert page.all("code")[0].text == shown
    assert f"title: {shown}" == page.all("pre")[0].text

    def labels(value):
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict | list):
            for each in value.values() if isinstance(value, dict) else value:
                yield from labels(each)

    # Plotly reads tags in labels: our own line breaks are the only ones there may be.
    texts = [
        text
        for figure in page.figures
        for text in labels(figure)
        if "alert" in text or "bold" in text
    ]
    assert texts
    for text in texts:
        assert re.findall(r"<[^>]*>", text.replace("<extra></extra>", "")) in (
            [],
            ["<br>"] * text.count("<br>"),
        )
        assert "bold" not in text or "&lt;b&gt;" in text.replace("<br>", "")
    assert any(html.unescape(text) == HOSTILE for text in texts)


@settings(max_examples=50, deadline=None)
@samples(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=4))
def test_any_name_comes_back_as_it_was(names):
    results = {
        "examples": [
            {
                "history": names,
                "candidates": [
                    {"name": name, "score": -number} for number, name in enumerate(names)
                ],
            }
        ]
    }
    section = predictions_section(RunRecord(results, [], ""))
    page = read_html(templates.get_template(section.template).render(part=section.context))
    # A parser reads NUL and carriage returns in its own way; the text is otherwise the same.
    expected = [" ".join(re.sub("[\0\r]", " ", name).split()) for name in names]

    def texts(elements):
        return [" ".join(re.sub("[\0\r�]", " ", element.raw).split()) for element in elements]

    assert texts(page.all("ol", class_="history")[0].all("li")) == expected
    assert texts(page.all("span", class_="name")) == expected


def variables(block: str) -> dict[str, str]:
    return dict(re.findall(r"(--[\w-]+): (#[0-9a-f]{6});", block))


def schemes() -> dict[str, dict[str, str]]:
    light, dark = re.findall(r":root \{(.*?)\n\s*\}", CSS, re.DOTALL)
    return {"light": variables(light), "dark": variables(light) | variables(dark)}


def luminance(color: list[float]) -> float:
    """Relative luminance of sRGB components in 0 to 1 (WCAG 2.2)."""
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def rgb(color: str) -> list[float]:
    return [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]


def contrast(one: list[float], other: list[float]) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_text_contrast_in_both_schemes():
    for scheme, color in schemes().items():
        for text in ("--ink", "--soft", "--accent", "--good", "--bad"):
            for ground in ("--paper", "--surface", "--tint"):
                assert contrast(rgb(color[text]), rgb(color[ground])) >= 4.5, (scheme, text, ground)
        assert contrast(rgb(color["--on-accent"]), rgb(color["--accent"])) >= 4.5, scheme
        for line in range(1, 7):
            assert contrast(rgb(color[f"--line-{line}"]), rgb(color["--paper"])) >= 3, scheme


def test_numbers_on_a_heat_table_are_readable_at_every_strength():
    for scheme, color in schemes().items():
        low, middle, high = (rgb(color[f"--heat-{number}"]) for number in range(3))
        for step in range(101):
            strength = step / 100
            start, end = (low, middle) if strength <= 0.5 else (middle, high)
            part = 2 * strength - (strength > 0.5)
            ground = [a + part * (b - a) for a, b in zip(start, end, strict=True)]
            text = rgb(color["--on-high" if strength > 0.6 else "--on-low"])
            assert contrast(text, ground) >= 4.5, (scheme, strength)


def test_every_colour_in_a_figure_is_one_of_the_page():
    page = render(RunRecord(ranking_results(), log_lines(), ""))
    figures = "".join(str(figure) for figure in read_html(page).figures)
    names = set(re.findall(r"var\((--[\w-]+)\)", figures))
    assert names
    defined = set(re.findall(r"(--[\w-]+): ", CSS))
    assert names <= defined
