"""Where a character stands among all others, read from its Unicode name and properties.

``path("á")`` is ``("letter", "Latin letter", "Latin small letter", "Latin small letter A",
"Latin small letter A with acute")``: from the kind down to the name itself. Every path has four
steps or more, and all paths together form one tree.
"""

import re
import unicodedata
from contextlib import suppress
from functools import cache

from fontTools import unicodedata as properties

KINDS = {"L": "letter", "N": "number", "P": "punctuation mark", "S": "symbol"}
"""The first step, by the first letter of the general category; other characters have no path."""

NAMELESS = ("CJK UNIFIED IDEOGRAPH", "CJK COMPATIBILITY IDEOGRAPH", "TANGUT IDEOGRAPH")
"""Characters named by number: the name does not describe the shape."""

ARABIC_FORM = re.compile(r" (?:ISOLATED|INITIAL|MEDIAL|FINAL) FORM$")

DIRECTIONS = (
    ("CLOCKWISE", "turning"),
    ("ANTICLOCKWISE", "turning"),
    ("CIRCLE", "turning"),
    ("NORTH", "slanting"),
    ("SOUTH", "slanting"),
    ("LEFT RIGHT", "left and right"),
    ("UP DOWN", "up and down"),
    ("LEFTWARDS", "leftwards"),
    ("RIGHTWARDS", "rightwards"),
    ("UPWARDS", "upwards"),
    ("DOWNWARDS", "downwards"),
    ("LEFT", "leftwards"),
    ("RIGHT", "rightwards"),
    ("UP", "upwards"),
    ("DOWN", "downwards"),
)
OPERATORS = {  # the first group with a word of the name
    "sort of integral": ("INTEGRAL",),
    "set operator": (
        *("SUBSET", "SUPERSET", "ELEMENT", "CONTAINS", "UNION", "INTERSECTION", "MULTISET", "JOIN"),
    ),
    "order relation": (
        *("LESS-THAN", "GREATER-THAN", "PRECEDES", "SUCCEEDS", "SUBGROUP", "IMAGE", "LESSER"),
        *("GREATER", "LESS"),
    ),
    "equality relation": (
        *("EQUAL", "EQUALS", "EQUIVALENT", "IDENTICAL", "TILDE", "ALMOST", "CONGRUENT"),
        *("APPROXIMATELY", "ASYMPTOTICALLY", "DIFFERENCE", "PROPORTION", "RATIO"),
    ),
    "logical operator": (
        *("LOGICAL", "AND", "OR", "TACK", "TURNSTILE", "TRUE", "FORCES", "EXISTS", "ALL", "NOT"),
        *("XOR", "NAND", "NOR", "MODELS", "ASSERTION", "PROVES", "THEREFORE", "BECAUSE"),
    ),
    "arithmetic operator": (
        *("PLUS", "MINUS", "TIMES", "DIVISION", "MULTIPLICATION", "ROOT", "SUMMATION", "PRODUCT"),
        *("COPRODUCT", "DIVIDES", "SLASH", "PLUS-MINUS", "MINUS-OR-PLUS", "DOT", "ASTERISK"),
    ),
}
PICTOGRAPHS = {  # by block
    "Dingbats": "dingbat",
    "Miscellaneous Technical": "technical pictograph",
    "Emoticons": "face",
    "Optical Character Recognition": "technical pictograph",
    "Control Pictures": "picture of a control code",
    "Enclosed Alphanumerics": "enclosed pictograph",
    "Enclosed Alphanumeric Supplement": "enclosed pictograph",
}
ORDINARY = {
    *("COMMON", "INHERITED", "UNKNOWN", "OLD", "NEW", "SMALL", "SQUARE", "SCRIPT", "NORTH"),
    *("SOUTH", "SEAL", "CURSIVE", "IMPERIAL", "LINEAR"),
}
"""Words of scripts' names that other names use in their common sense."""
OTHER_PROPER = {"ROMAN", "INDIC", "CREE", "CARRIER", "BLACKFOOT", "CHI", "SAYISI", "NASKAPI"}
PIECES = {"CHESS": "chess piece", "DOMINO": "domino tile", "CARD": "playing card"}
DIVINATION = ("HEXAGRAM", "TETRAGRAM", "TRIGRAM", "DIGRAM", "MONOGRAM")


@cache
def path(character: str) -> tuple[str, ...]:
    """The captions from the kind to the name, each entailing all before it.

    Empty for a character without a name or a look of its own: controls, spaces, combining marks,
    private use, ideographs that are named by number.
    """
    name = unicodedata.name(character, "")
    category = unicodedata.category(character)
    if not name or category[0] not in KINDS or name.startswith(NAMELESS):
        return ()
    if above := _without_addition(name):
        return (*path(above), phrase(name))
    group = {"L": _letter, "N": _number, "P": _punctuation, "S": _symbol}[category[0]]
    return KINDS[category[0]], *group(character, name, category), phrase(name)


def _without_addition(name: str) -> str:
    """The character that this one adds something to: an accent, a stroke, a form; or nothing.

    What stands before "WITH" must be a character of its own, so that captions form a tree.
    """
    shorter = [name[: form.start()]] if (form := ARABIC_FORM.search(name)) else []
    base, _, added = name.partition(" WITH ")
    if added and "LIGATURE" not in name:  # a ligature is one letter "WITH" another
        additions = added.split(" AND ")
        shorter += [
            f"{base} WITH {' AND '.join(additions[:count])}"
            for count in range(len(additions) - 1, 0, -1)
        ]
        shorter.append(base)
    for candidate in shorter:
        with suppress(KeyError):
            if path(character := unicodedata.lookup(candidate)):
                return character
    return ""


def script(character: str) -> str:
    """The script by its Unicode name, such as ``Latin``; ``Common`` where several share it."""
    return properties.script_name(properties.script(character)).replace("_", " ")


def phrase(name: str) -> str:
    """A Unicode name as people write it: ``Latin small letter A with acute``."""
    return " ".join(
        word if len(word) == 1 else "-".join(map(_cased, word.split("-"))) for word in name.split()
    )


def _cased(word: str) -> str:
    return word.capitalize() if word in _proper() else word.lower()


@cache
def _proper() -> frozenset[str]:
    """Words that keep their capital: those of the scripts' names, and a few of their kind."""
    scripts = {properties.script_name(code) for code in properties.Scripts.VALUES}
    return frozenset(" ".join(scripts).upper().split()) - ORDINARY | OTHER_PROPER


def _letter(character: str, name: str, category: str) -> tuple[str, ...]:
    which = script(character)
    if name.startswith("MATHEMATICAL "):
        style = " ".join(name.split()[:-1])
        return "mathematical letter", f"{phrase(style)} letter"
    if which in {"Common", "Inherited"}:
        return "shared letter", "modifier letter" if category == "Lm" else "letterlike sign"
    words = name.split()
    if "LIGATURE" in words:
        kind = f"{which} ligature"
    elif "LETTER" not in words:
        kind = f"other {which} letter"
    else:
        before = words[: words.index("LETTER")]
        case = next((word for word in ("CAPITAL", "SMALL") if word in before), "caseless")
        kind = f"{which} {case.lower()} letter"
    return f"{which} letter", kind


def _number(character: str, name: str, category: str) -> tuple[str, ...]:
    if "FRACTION" in name:
        return "fraction", "vulgar fraction" if name.startswith("VULGAR") else "other fraction"
    if "ROMAN NUMERAL" in name:
        return "numeral", f"{'small' if name.startswith('SMALL') else 'capital'} Roman numeral"
    for word, kind in (("DIGIT", "digit"), ("NUMBER", "number of several digits")):
        before, found, after = name.partition(word)
        if found:
            ending = " and stop" if after.endswith("FULL STOP") else ""
            return kind, f"{phrase(before.strip()) or 'Western'} {kind}{ending}"
    for word in ("SUPERSCRIPT", "SUBSCRIPT"):
        if name.startswith(word):
            return "digit", f"{word.lower()} digit"
    return "numeral", "other numeral"


def _punctuation(character: str, name: str, category: str) -> tuple[str, ...]:
    which = script(character)
    which = "shared" if which in {"Common", "Inherited"} else which
    match category:
        case "Ps" | "Pe":
            return "bracket", f"{'opening' if category == 'Ps' else 'closing'} bracket"
        case "Pi" | "Pf":
            side = "opening" if category == "Pi" else "closing"
            return "paired quotation mark", f"{side} quotation mark"
        case "Pd" | "Pc":
            return "line in a text", "dash" if category == "Pd" else "connector"
    return "mark in a text", f"{which} mark in a text"


def _symbol(character: str, name: str, category: str) -> tuple[str, ...]:
    block, words = properties.block(character), set(name.split())
    if category in {"Sc", "Sk"}:
        return "sign", "sign of a currency" if category == "Sc" else "modifier sign"
    if words & {"ARROW", "ARROWS", "HARPOON", "ARROWHEAD", "HARPOONS", "ARROW-TAIL"}:
        direction = next((way for word, way in DIRECTIONS if word in name), "another way")
        return "arrow", f"arrow pointing {direction}"
    if piece := next((PIECES[word] for word in PIECES if word in words), ""):
        return "game piece", piece
    if ending := next((word for word in DIVINATION if word in words), ""):
        return "divination symbol", f"{ending.lower()} of divination"
    match block:
        case "Box Drawing":
            weights = words & {"LIGHT", "HEAVY", "SINGLE", "DOUBLE"}
            kind = weights.pop().lower() if len(weights) == 1 else "mixed"
            return "box drawing", f"{kind} box drawing"
        case "Block Elements":
            kind = "shade" if "SHADE" in words else "quadrant" if "QUADRANT" in words else "solid"
            return "block element", f"{kind} element"
        case "Geometric Shapes" | "Geometric Shapes Extended":
            colour = next((word for word in ("BLACK", "WHITE") if word in words), "OTHER")
            return "geometric shape", f"{colour.lower()} geometric shape"
        case "Braille Patterns":
            dots = len(name.rpartition("-")[2])
            return "Braille pattern", f"Braille pattern of {dots} dot{'s' * (dots > 1)}"
    if {"LETTER", "LATIN"} <= words:
        return "enclosed letter", f"{name.split()[0].lower()} letter"
    if category == "Sm" or block.endswith(("Operators", "Mathematical Symbols-A")):
        groups = (group for group, marks in OPERATORS.items() if words.intersection(marks))
        return "mathematical operator", next(groups, "other operator")
    if name.endswith((" SIGN", " SYMBOL")):
        return "sign", "other sign"
    return "pictograph", PICTOGRAPHS.get(block, "other pictograph")
