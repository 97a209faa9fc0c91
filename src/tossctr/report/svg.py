"""Matplotlib figures as inline SVG with the colours and the font of the page.

Figures are drawn in placeholder colours that are replaced by CSS variables, so that the same SVG
works on a light and on a dark page; text stays text.
"""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INK, MUTED, LINE = "#010203", "#010204", "#010205"
SERIES = tuple(f"#0102a{i}" for i in range(1, 7))  # one colour per run, up to six
_VARIABLES = {INK: "ink", MUTED: "muted", LINE: "line"} | {
    colour: f"s{i}" for i, colour in enumerate(SERIES, 1)
}
DASHED = (0, (4, 3))
WIDTH_IN = 4.2  # fits a phone; wider columns scale it up
HEIGHT_IN = 2.8
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "tossctr",
    "font.size": 10.5,
    "axes.labelsize": 10.5,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.major.pad": 6,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "text.parse_math": False,  # names of fields and events are not formulas
}


@dataclass(frozen=True)
class Plot:
    """A figure of the page.

    Attributes:
        svg: the drawing, with a label for screen readers.
        note: a line below the figure.
    """

    title: str
    svg: str
    note: str = ""


def plot(
    name: str,
    title: str,
    alt: str,
    draw: Callable[[Axes], None],
    *,
    note: str = "",
    height_in: float = HEIGHT_IN,
) -> Plot:
    """Draw on one pair of axes.

    Args:
        name: unique on the page; letters, digits and hyphens.
        alt: the label for screen readers.
        draw: draws on the given axes.
        height_in: height in inches; the width is `WIDTH_IN`.
    """
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the page's font may have it
        figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure.add_subplot())
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    return Plot(title, _inline(text.getvalue(), name, alt), note)


def _inline(svg: str, name: str, alt: str) -> str:
    """The SVG without prolog, fonts and colours, to be put into a page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    about = (
        f'role="img" aria-label="{html.escape(alt)}" xmlns="http://www.w3.org/2000/svg" '
        'xmlns:xlink="http://www.w3.org/1999/xlink"'
    )
    svg = re.sub(
        r'<svg[^>]*(viewBox="[^"]+")[^>]*>', lambda m: f"<svg {m[1]} {about}>", svg, count=1
    )
    # Ids must be unique in a page: used ones get the figure's name as prefix, others are removed.
    used = set(re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", svg))
    svg = re.sub(r' id="([^"]+)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"font: (?:\w+ )?([\d.]+)px [^;\"]*", r"font-size: \1px", svg)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var(--{variable})")
    return re.sub(r"\n\s*", "\n", svg)
