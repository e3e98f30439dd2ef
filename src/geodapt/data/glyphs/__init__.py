"""Image-text data that every machine has: characters of its fonts, named by Unicode.

A picture is a rendered character; its captions go from general to specific, as the tree of
Unicode names has them. Fonts are domains, scripts are data sets.

>>> from geodapt.data.glyphs import GlyphSettings, load_glyphs
>>> glyphs = load_glyphs(GlyphSettings(scripts=["Latin", "Greek"]))  # doctest: +SKIP
>>> glyphs.splits["train"][0]  # doctest: +SKIP
{'image': <PIL.PngImagePlugin.PngImageFile ...>, 'label': 0, 'domain': 0}
"""

from geodapt.data.glyph_settings import GlyphSettings, PageSettings, require_drawing

require_drawing()

from geodapt.data.glyphs.fonts import Font  # noqa: E402
from geodapt.data.glyphs.loading import Glyphs, load_glyphs  # noqa: E402
from geodapt.data.glyphs.pages import load_pages, page_classes  # noqa: E402
from geodapt.data.glyphs.tree import Tree  # noqa: E402

__all__ = [
    "Font",
    "GlyphSettings",
    "Glyphs",
    "PageSettings",
    "Tree",
    "load_glyphs",
    "load_pages",
    "page_classes",
]
