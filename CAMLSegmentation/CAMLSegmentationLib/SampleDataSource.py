"""Two procedural scans for Slicer's Sample Data module. They come with the extension: no network is needed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from slicer.i18n import tr as _

CATEGORY = "CAML"
_RESOURCES = Path(__file__).resolve().parents[1] / "Resources"


@dataclass(frozen=True)
class Sample:
    """One scan: ``name`` of node and files, ``sha256`` of the file."""

    name: str
    title: str
    sha256: str

    @property
    def path(self) -> Path:
        """The scan."""
        return _RESOURCES / "SampleData" / f"{self.name}.nrrd"

    @property
    def thumbnail(self) -> Path:
        """Its picture."""
        return _RESOURCES / "Icons" / f"{self.name}.png"


def samples() -> tuple[Sample, ...]:
    """Return all scans."""
    return (
        Sample(
            "CAMLPhantomLeftAtriumMR",
            _("Left atrium, MRI (phantom)"),
            "913009d2b7ffb60e115328a1caded38c8690a9dc71293d4e7b8a7c2575e8bf04",
        ),
        Sample(
            "CAMLPhantomCoronaryCTA",
            _("Coronary arteries, CTA (phantom)"),
            "f67bafe35aed1e3658d66ec38f24a37552865f570a0984537b6bc3d8d4b27728",
        ),
    )


def registerSampleData() -> None:
    """Tell Slicer's Sample Data module; nothing is read before the user asks for it."""
    import SampleData

    for sample in samples():
        SampleData.SampleDataLogic.registerCustomSampleDataSource(
            category=CATEGORY,
            sampleName=sample.title,
            thumbnailFileName=str(sample.thumbnail),
            uris=sample.path.as_uri(),
            fileNames=sample.path.name,
            nodeNames=sample.name,
            checksums=f"SHA256:{sample.sha256}",
        )
