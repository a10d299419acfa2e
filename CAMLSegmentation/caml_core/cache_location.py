"""Where prepared cases and measurements are kept between runs. Standard library only."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def user_cache_folder() -> Path:
    """The per-user cache folder: CAML_CACHE_DIR where it is set, else the system's own place. It may not exist yet."""
    named = os.environ.get("CAML_CACHE_DIR")
    if named:
        return Path(named)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "caml" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "caml"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "caml"
