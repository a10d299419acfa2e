"""Files that were moved, found again by their names. Standard library only."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..data.files import absolute, relative_to, replacing
from ..serialization import write_json


def find_moved(lost: Iterable[Path], folder: Path, used: Iterable[Path] = ()) -> dict[Path, Path]:
    """Return where files of ``lost`` lie below ``folder`` now: old path -> new path, for those that are sure.

    Among several of one name the one whose folders agree with the old ones farthest upwards is taken. Where two agree
    alike, or two old files would become the same new one or one in ``used``, none is: a scan that is missing is said
    to be, one of another patient would be learnt from.
    """
    wanted = set(lost)
    names = {path.name for path in wanted}
    places: dict[str, list[Path]] = {}
    for place, folders, files in os.walk(folder):  # no path is made of what is not asked for: archives are large
        for name in names.intersection((*folders, *files)):
            places.setdefault(name, []).append(absolute(Path(place, name)))
    found = {old: new for old in wanted if (new := _best(old, places.get(old.name, []))) is not None}
    taken, count = set(used), Counter(found.values())
    return {old: new for old, new in found.items() if count[new] == 1 and new not in taken}


def rewrite_paths(cohort: Path, moved: Mapping[Path, Path]) -> None:
    """Put the new places of files into a cohort's JSON list, where it names old ones; one that cannot be read stays.

    Raises ResourceError where it cannot be written.
    """
    try:
        content = json.loads(cohort.read_text(encoding="utf-8"))
        rows = [row for row in content["cases"] if isinstance(row, dict)]
    except (OSError, ValueError, KeyError, TypeError):
        return
    places = {absolute(old): new for old, new in moved.items()}
    changed = False

    def now(text: str) -> str:
        nonlocal changed
        new = places.get(absolute(cohort.parent / text))
        changed = changed or new is not None
        return text if new is None else relative_to(new, cohort.parent)

    for row in rows:
        row["images"] = [now(text) for text in row.get("images", [])]
        if row.get("label"):
            row["label"] = now(row["label"])
    if changed:
        with replacing(cohort) as temporary:
            write_json(temporary, content)


def _best(old: Path, candidates: list[Path]) -> Path | None:
    if len(candidates) == 1:
        return candidates[0]
    ranked = sorted(candidates, key=lambda new: _common_tail(old, new), reverse=True)
    if not ranked or _common_tail(old, ranked[0]) == _common_tail(old, ranked[1]):
        return None
    return ranked[0]


def _common_tail(one: Path, other: Path) -> int:
    """How many parts of two paths are equal, from the name upwards."""
    count = 0
    for a, b in zip(reversed(one.parts), reversed(other.parts)):
        if a != b:
            break
        count += 1
    return count
