"""How pictures look. matplotlib is imported inside functions: nothing but pictures needs it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..data.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Told apart with any colour vision (after Okabe and Ito), in the order of use.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
REFERENCE, PREDICTION = "#35D0E6", "#FF8A1F"
INK, GRID = "#33414e", "#dfe5ea"
#: Fonts of the usual systems with what matplotlib's own lacks: Chinese, Japanese, Korean names.
FURTHER_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK TC", "Noto Sans CJK KR", "Noto Sans SC", "Noto Sans JP"),
    *("Microsoft YaHei", "Microsoft JhengHei", "SimHei", "Yu Gothic", "Meiryo", "MS Gothic", "Malgun Gothic"),
    *("PingFang SC", "Hiragino Sans GB", "Hiragino Sans", "Heiti TC", "Songti SC", "Apple SD Gothic Neo"),
    *("WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback", "IPAexGothic", "NanumGothic"),
    "Arial Unicode MS",
)


def new_figure(width: float, height: float, dark: bool = False) -> Figure:
    """Return an empty figure (inches) that no window system knows of."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    _add_further_fonts()
    figure = Figure(figsize=(width, height), facecolor="#101418" if dark else "white")
    FigureCanvasAgg(figure)
    return figure


def _add_further_fonts() -> None:
    """Let characters that matplotlib's own font lacks come from those of the system that it has found."""
    from matplotlib import font_manager, rcParams

    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # some have no bold face
    there = {font.name for font in font_manager.fontManager.ttflist}
    own = [name for name in rcParams["font.family"] if name not in FURTHER_FONTS]
    rcParams["font.family"] = [*own, *(name for name in FURTHER_FONTS if name in there)]


def save(figure: Figure, path: Path, dpi: int = 110) -> Path:
    """Write ``figure`` as PNG under a temporary name first."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi, facecolor=figure.get_facecolor(), metadata={"Software": None})
    return path


def plot_axes(axes: Axes, title: str, x: str, y: str) -> None:
    """Give a plot its title, its labels and a quiet frame."""
    axes.set_title(title, fontsize=10, color=INK, loc="left", fontweight="bold")
    axes.set_xlabel(x, fontsize=9, color=INK)
    axes.set_ylabel(y, fontsize=9, color=INK)
    axes.grid(True, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, colors=INK)
    for name, spine in axes.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color(GRID)


def as_written(name: str) -> str:
    """Return a name as matplotlib shows it as it is: dollars are no formulas, an underscore hides it from no legend."""
    return f"{' ' if name.startswith('_') else ''}{name}".replace("$", r"\$")


def legend(axes: Axes) -> None:
    """Add a legend where there is something to tell."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        axes.legend(handles, labels, fontsize=8, frameon=False, labelcolor=INK)


def nothing_to_show(axes: Axes, text: str) -> None:
    """Say so in an empty plot."""
    axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=9, color="#7b8794", transform=axes.transAxes)


def colors_of(names: Mapping[str, object]) -> dict[str, str]:
    """Return name -> colour."""
    return {name: COLORS[i % len(COLORS)] for i, name in enumerate(names)}
