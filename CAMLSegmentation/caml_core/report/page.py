"""One HTML page without scripts or outside resources. Everything that is not ours is escaped. Standard library only."""

from __future__ import annotations

import html
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import quote

from ..data.files import absolute, replacing

_STYLE = """
:root { color-scheme: light; }
body { margin: 0; background: #f4f6f8; color: #24313d; font: 16px/1.5 system-ui, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 28px 24px 60px; }
h1 { font-size: 28px; margin: 8px 0 4px; }
h2 { font-size: 21px; margin: 0 0 8px; }
h3 { font-size: 16px; margin: 26px 0 8px; }
p { max-width: 80ch; margin: 8px 0; }
section { background: white; border-radius: 10px; padding: 22px 24px; margin: 22px 0; box-shadow: 0 1px 4px #0002; }
.verdict { border-left: 4px solid #0072b2; background: #eef5fa; padding: 8px 14px; margin: 12px 0; max-width: none; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 14.5px; margin: 10px 0; }
th, td { padding: 5px 14px 5px 0; text-align: right; border-bottom: 1px solid #e4e9ed; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
thead th { color: #5a6875; font-weight: 600; vertical-align: bottom; }
tr.mean td { font-weight: 600; border-top: 2px solid #b9c4cd; }
td.best { color: #00613f; font-weight: 700; }
figure { margin: 14px 0; }
img { max-width: 100%; height: auto; border-radius: 6px; display: block; }
figcaption { color: #5a6875; font-size: 14px; margin-top: 5px; }
.key { display: inline-block; width: 22px; height: 0; border-top: 3px solid; margin: 0 5px 4px 12px; }
footer { color: #6b7884; font-size: 13.5px; }
"""


def escape(value: object) -> str:
    """Return text that cannot become markup, in text and in attributes."""
    return html.escape(str(value), quote=True)


def paragraph(text: str, kind: str = "") -> str:
    """Return a paragraph, or nothing for empty text."""
    return f"<p{_class(kind)}>{escape(text)}</p>" if text else ""


def heading(level: int, text: str) -> str:
    """Return a heading."""
    return f"<h{level}>{escape(text)}</h{level}>"


def link(target: Path, page: Path, text: str) -> str:
    """Return a link to a file, relative to the page where that can be."""
    return f'<a href="{_address(target, page)}">{escape(text)}</a>'


def picture(image: Path, page: Path, caption: str, key: Sequence[tuple[str, str]] = ()) -> str:
    """Return a picture with its caption; ``key`` explains line colours as (colour, meaning)."""
    marks = "".join(f'<span class="key" style="border-color:{escape(c)}"></span>{escape(t)}' for c, t in key)
    return (
        f'<figure><img src="{_address(image, page)}" alt="{escape(caption)}" loading="lazy">'
        f"<figcaption>{escape(caption)}{marks}</figcaption></figure>"
    )


def table(header: Sequence[str], rows: Iterable[Sequence[tuple[str, str]]], last_is_mean: bool = False) -> str:
    """Return a table of cells (text, class); the classes are ``best`` or empty."""
    lines = list(rows)
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = []
    for number, line in enumerate(lines, 1):
        cells = "".join(f"<td{_class(kind)}>{escape(text)}</td>" for text, kind in line)
        body.append(f"<tr{_class('mean' if last_is_mean and number == len(lines) else '')}>{cells}</tr>")
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'


def section(*parts: str) -> str:
    """Return a box of parts."""
    return "<section>" + "\n".join(filter(None, parts)) + "</section>"


def write_page(path: Path, title: str, parts: Iterable[str], footer: str) -> Path:
    """Write the page under a temporary name first."""
    text = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body><main>\n"
        + "\n".join(filter(None, parts))
        + f"\n<footer>{paragraph(footer)}</footer></main></body></html>\n"
    )
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def _class(kind: str) -> str:
    return f' class="{escape(kind)}"' if kind else ""


def _address(target: Path, page: Path) -> str:
    """As seen from the page, so that both can be moved together; from another Windows drive no such way leads."""
    try:
        return escape(quote(Path(os.path.relpath(target, page.parent)).as_posix()))
    except ValueError:
        return escape(absolute(target).as_uri())
