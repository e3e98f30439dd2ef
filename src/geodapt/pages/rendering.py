"""A page's sections as one HTML file that opens without a network."""

import gzip
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from jinja2 import BaseLoader, Environment, PackageLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from geodapt.pages.results import as_documented
from geodapt.pages.section import Section


class _PackageTemplates(BaseLoader):
    """``package/name.html`` is the file ``templates/name.html`` of a package."""

    def get_source(
        self, environment: Environment, template: str
    ) -> tuple[str, str | None, Callable[[], bool] | None]:
        package, _, name = template.partition("/")
        return _loader(package).get_source(environment, name)


@cache
def _loader(package: str) -> PackageLoader:
    return PackageLoader(package)


templates = Environment(
    loader=_PackageTemplates(),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render_sections(title: str, lede: str, sections: Sequence[Section]) -> str:
    """A page of sections as HTML; the library that draws is in it where there is a figure."""
    page = templates.get_template("geodapt.pages/page.html")
    drawn = any(has_figure(section.context) for section in sections)
    library = packed_plotly() if drawn else ""
    with as_documented("a section"):
        return page.render(title=title, lede=lede, sections=sections, library=library)


def has_figure(context: Any) -> bool:
    """Whether a section's context holds a figure of :func:`geodapt.pages.plotly_style.style`."""
    if isinstance(context, Mapping):
        return {"data", "layout"} <= context.keys() or any(map(has_figure, context.values()))
    return isinstance(context, list) and any(map(has_figure, context))


@cache
def packed_plotly() -> str:
    """plotly.js by gzip, in base 64: 1.9 MB of a page where the plain library takes 4.8."""
    return b64encode(gzip.compress(get_plotlyjs().encode(), 9, mtime=0)).decode()
