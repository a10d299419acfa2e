"""Sentences with names that anybody may have thought up: of models, segments and cases."""

from __future__ import annotations

import html


def asWritten(text: str) -> str:
    """Return a sentence for a label, a tooltip or a message box, in which it stands as it is.

    Qt takes text with a tag in it for HTML, and fetches the pictures that HTML names, be it from another computer.
    """
    if "<" not in text and "&lt;" not in text:
        return text
    lines = html.escape(text).replace("\n", "<br>")
    return f"<p>{lines}</p>"
