"""The segments of a project as its user lists them: names, and the values that plain label maps have for them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from ..config import Segment, name_key, palette_color
from ..data.segments import plain_name
from ..errors import UsageError

_WITH_VALUE = re.compile(r"^(.*\S)\s*=\s*(\d+)$")
_VALUES = range(1, 256)


def list_segments(
    entries: Iterable[str], before: Sequence[Segment] = (), look: Sequence[Segment] = ()
) -> tuple[Segment, ...]:
    """Return the segments of ``entries``: "left atrium", or "left atrium = 255" where plain label maps have that value.

    before: the segments so far. Those that stay keep value, colour and terminology, whatever their place; one that was
    renamed (as many as before, and another name in one's place) keeps value and colour. look: segments that give new
    names their value and look. Other new names get the lowest value that none has or had, "segment_7" gets 7. Raises
    UsageError for two of one name or value.
    """
    named = [_parsed(entry) for entry in entries if entry.strip()]
    keys = [name_key(name) for name, _ in named]
    if len(set(keys)) < len(keys):
        raise UsageError("Two segments have one name; give each its own.")
    given = [value for _, value in named if value is not None]
    wrong = next((v for v in given if v not in _VALUES or given.count(v) > 1), None)
    if wrong is not None:
        raise UsageError(f"The value {wrong} cannot be that of a segment; give each its own, from 1 to 255.")
    known = _known([name for name, _ in named], before, look)
    taken, had = set(given), {s.label for s in before}
    segments: list[Segment | None] = [None] * len(named)
    # Those with a value come first, so that a new name does not take it away from one that is known.
    for index in sorted(range(len(named)), key=lambda i: (named[i][1] is None, keys[i] not in known)):
        name, value = named[index]
        like = known.get(keys[index])
        if value is None:
            wanted = like.label if like is not None else _value_in(name)
            free = (v for v in _VALUES if v not in taken | had)
            value = wanted if wanted and wanted not in taken else next(free)
        taken.add(value)
        segments[index] = replace(like or Segment(name, value, palette_color(value)), name=name, label=value)
    return tuple(s for s in segments if s is not None)


def renamed(after: Sequence[Segment], before: Sequence[Segment]) -> dict[str, str]:
    """Return old name -> new name of segments that have their value under another name now."""
    old_keys, new_keys = ({name_key(s.name) for s in segments} for segments in (before, after))
    new = {s.label: s.name for s in after if name_key(s.name) not in old_keys}
    return {s.name: new[s.label] for s in before if name_key(s.name) not in new_keys and s.label in new}


def written(segments: Sequence[Segment]) -> str:
    """Return the list as its user writes it, with the values where they are not just 1, 2, ..."""
    return ", ".join(s.name if s.label == place else f"{s.name} = {s.label}" for place, s in enumerate(segments, 1))


def _known(names: Sequence[str], before: Sequence[Segment], look: Sequence[Segment]) -> Mapping[str, Segment]:
    known = {name_key(s.name): s for s in (*look, *before)}
    if len(names) != len(before):
        return known
    new_keys = {name_key(name) for name in names}
    for name, like in zip(names, before):
        if name_key(like.name) not in new_keys:  # what it is may have changed with its name: no terminology
            known.setdefault(name_key(name), Segment(name, like.label, like.color))
    return known


def _parsed(entry: str) -> tuple[str, int | None]:
    found = _WITH_VALUE.match(entry.strip())
    return (found[1], int(found[2])) if found else (entry.strip(), None)


def _value_in(name: str) -> int | None:
    """The value that a name such as segment_7 speaks of."""
    return next((value for value in _VALUES if plain_name(value) == name), None)
