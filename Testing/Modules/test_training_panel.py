"""The training panel, clicked through on the host."""

from __future__ import annotations


def test_it_opens(the_training_module):
    panel = the_training_module.panel
    assert not panel.ui.trainButton.enabled
    assert "labelled" in panel.ui.trainButton.toolTip
