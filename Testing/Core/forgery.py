"""Model files as a stranger could make them: anything may be in them, and their checksums fit."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewrite(path: Path, contents: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)


def forge(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the description as an attacker would, with a checksum that fits again."""
    contents = members(path)
    document = json.loads(contents["model.json"])
    change(document)
    document.pop("checksum")
    plain = json.dumps(document, sort_keys=True, ensure_ascii=True).encode("ascii")
    document["checksum"] = hashlib.sha256(plain).hexdigest()
    rewrite(path, {**contents, "model.json": json.dumps(document).encode()})


def forge_weights(path: Path, weights: bytes) -> None:
    rewrite(path, {**members(path), "weights.safetensors": weights})
    forge(path, lambda document: document["weights"].update(sha256=hashlib.sha256(weights).hexdigest()))
