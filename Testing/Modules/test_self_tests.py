"""What ctest runs inside Slicer, run in the host: its faults must not wait for a Slicer to be found."""

from __future__ import annotations

import importlib.util
import sys
import types
import unittest
from pathlib import Path

import pytest
import SlicerHost

REPOSITORY = Path(__file__).resolve().parents[2]


class SampleDataLogic:
    """Slicer's module Sample Data, as far as scans on the disk go: an entry is listed once."""

    sources: list[types.SimpleNamespace] = []

    @classmethod
    def registerCustomSampleDataSource(cls, **entry):  # noqa: N802
        source = types.SimpleNamespace(**entry)
        if source not in cls.sources:
            cls.sources.append(source)

    @classmethod
    def sampleDataSourcesByCategory(cls, category):  # noqa: N802
        return [source for source in cls.sources if source.category == category]

    def downloadFromSource(self, source):  # noqa: N802
        import slicer

        path = Path(source.uris.removeprefix("file://"))
        assert source.checksums == f"SHA256:{slicer.util.computeChecksum('SHA256', str(path))}"
        return [slicer.util.loadVolume(str(path), {"name": source.nodeNames})]


@pytest.fixture
def nobody_is_in_a_module(the_training_module, monkeypatch):
    """Both modules are loaded, and as under ctest no window has opened one."""
    SlicerHost.leave("CAMLTraining")
    monkeypatch.setattr(SampleDataLogic, "sources", [])
    monkeypatch.setitem(sys.modules, "SampleData", types.SimpleNamespace(SampleDataLogic=SampleDataLogic))


def cases_in(path: Path) -> unittest.TestSuite:
    spec = importlib.util.spec_from_file_location(f"self_test_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return unittest.defaultTestLoader.loadTestsFromModule(module)


@pytest.mark.usefixtures("nobody_is_in_a_module")
@pytest.mark.parametrize(
    "name",
    [
        *("Testing/Python/CAMLSegmentationModuleTest.py", "Testing/Python/CAMLTrainingModuleTest.py"),
        *("CAMLSegmentation/CAMLSegmentation.py", "CAMLTraining/CAMLTraining.py"),
    ],
)
def test_what_ctest_runs_passes(name, tmp_path):
    suite, result = cases_in(REPOSITORY / name), unittest.TestResult()
    count = suite.countTestCases()
    suite.run(result)
    assert result.testsRun == count > 0 and not result.skipped
    assert [text for _test, text in (*result.errors, *result.failures)] == []
    assert not (tmp_path / "home").exists(), "and leaves nothing in the user's folder"
