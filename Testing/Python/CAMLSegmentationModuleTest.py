"""Run inside Slicer by ctest: the module opens, and its sample data load. Needs neither PyTorch nor a network."""

from __future__ import annotations

import unittest

import slicer


class CAMLSegmentationModuleTest(unittest.TestCase):
    """The module as a newcomer meets it."""

    def setUp(self):
        slicer.mrmlScene.Clear()

    def open_module(self):
        """Come to the module as a user does: since the scene was closed it follows none."""
        widget = slicer.modules.camlsegmentation.widgetRepresentation().self()
        widget.enter()
        return widget.panel

    def test_the_panel_says_what_is_missing(self):
        panel = self.open_module()
        self.assertFalse(panel.ui.applyButton.enabled)
        self.assertTrue(panel.ui.applyButton.toolTip)

    def test_sample_data_load_as_volumes(self):
        import SampleData
        from CAMLSegmentationLib.SampleDataSource import CATEGORY, registerSampleData

        registerSampleData()
        registerSampleData()
        sources = SampleData.SampleDataLogic.sampleDataSourcesByCategory(CATEGORY)
        self.assertEqual(len(sources), 2)
        for source in sources:
            (volume,) = SampleData.SampleDataLogic().downloadFromSource(source)
            self.assertTrue(volume.IsA("vtkMRMLScalarVolumeNode"))
            self.assertGreater(min(volume.GetImageData().GetDimensions()), 30)
