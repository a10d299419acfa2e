"""Where a user's things are kept: what can be made again (the cache), and models. Standard library only."""

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
        return _local_application_data() / "caml" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "caml"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "caml"


def user_cases_folder() -> Path:
    """The folder of prepared scans in the cache; in the system's own place it is made, and then for this user alone.

    A folder that CAML_CACHE_DIR names may be meant for several users: there nothing is made. Where the folder cannot be
    made, whoever writes into it says so.
    """
    folder = user_cache_folder() / "cases"
    if os.name != "nt" and not os.environ.get("CAML_CACHE_DIR"):  # on Windows others may not look there anyway
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir(0o700)
        except OSError:  # mostly since it is there: its permissions are the user's choice
            pass
    return folder


def user_models_folder() -> Path:
    """The per-user folder of models: CAML_MODELS_DIR where it is set, else the system's own place for data.

    It belongs to no version of Slicer, so that models outlive an upgrade. It may not exist yet.
    """
    named = os.environ.get("CAML_MODELS_DIR")
    if named:
        return Path(named)
    if sys.platform == "win32":
        return _local_application_data() / "caml" / "models"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "caml" / "models"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "caml" / "models"


def _local_application_data() -> Path:
    return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
