"""Run inside Slicer by ctest: the module opens, and lists the scene's volumes. Needs neither PyTorch nor a network."""

from __future__ import annotations

import unittest

import slicer


class CAMLTrainingModuleTest(unittest.TestCase):
    """The module as a newcomer meets it."""

    def setUp(self):
        slicer.mrmlScene.Clear()

    def open_module(self):
        """Come to the module as a user does: since the scene was closed it follows none."""
        widget = slicer.modules.camltraining.widgetRepresentation().self()
        widget.enter()
        return widget.panel

    def test_the_panel_says_what_is_missing(self):
        panel = self.open_module()
        self.assertFalse(panel.ui.trainButton.enabled)
        self.assertTrue(panel.ui.trainButton.toolTip)

    def test_volumes_of_the_scene_are_cases(self):
        import numpy

        slicer.util.addVolumeFromArray(numpy.arange(4096, dtype=numpy.int16).reshape(16, 16, 16), name="Scan 1")
        panel = self.open_module()
        self.assertEqual(list(panel.logic.project.cases), ["Scan 1"])
        self.assertEqual(panel.ui.casesTableWidget.rowCount, 1)
