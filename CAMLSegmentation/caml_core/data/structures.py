"""What all label maps of one origin hold together: a single case may lack a class, and would be misread for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..config import name_key
from .labels import is_segmentation, read_labels


@dataclass(frozen=True)
class Structures:
    """``values`` of the label maps without names, and ``names`` that the others list: key -> name."""

    values: frozenset[int] = frozenset()
    names: Mapping[str, str] = field(default_factory=dict)

    @property
    def single(self) -> bool:
        """Whether there is one structure at most: what is called differently on another side is the same then."""
        return len(self.values) <= 1 and len(self.names) <= 1


def read_structures(files: Mapping[str, Path], check: Callable[[], None] = lambda: None) -> Structures:
    """Read the label maps of cases; ``check`` is called before each and may raise.

    Names are left out where the values alone say that there are several structures: reading takes its time.
    """
    values: set[int] = set()
    names: dict[str, str] = {}
    for case, path in sorted(files.items(), key=lambda item: is_segmentation(item[1])):
        if is_segmentation(path) and len(values) > 1:
            break
        check()
        found = read_labels(path, case)
        if found.named:
            names = {name_key(segment.name): segment.name for segment in found.segments} | names
        else:
            values |= {segment.label for segment in found.segments}
    return Structures(frozenset(values), names)
