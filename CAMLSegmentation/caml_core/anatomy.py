"""Segments that several parts name, coded as DICOM does. Standard library only."""

from __future__ import annotations

from .config import Segment

#: Colour: that of "Heart" in 3D Slicer's list. Codes: SNOMED CT body structures, in the words of the DICOM standard.
LEFT_ATRIUM = Segment(
    "Left atrium",
    1,
    (0.808, 0.431, 0.329),
    "Segmentation category and type - DICOM master list"
    "~SCT^123037004^Anatomical Structure~SCT^82471001^Left atrium~^^~Anatomic codes - DICOM master list~^^~^^",
)
