"""The panel's topmost part, shown while packages are missing: one question, then they are installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from caml_core.errors import CamlError

from . import Installation


class InstallSection:
    """Says what is missing and installs it; calls ``onChange`` afterwards."""

    def __init__(self, ui: Any, onChange: Any) -> None:
        self._ui, self._onChange = ui, onChange
        self.missing: tuple[str, ...] = ()
        #: Why the last try failed, where Slicer's own window has told the details.
        self._fault = ""
        #: Slicer handles what the user does between two lines that pip prints.
        self._busy = False
        ui.installButton.connect("clicked(bool)", self._onInstall)
        ui.offlineButton.connect("clicked(bool)", self._onOffline)
        ui.installFolderButton.connect("clicked(bool)", self._onFolder)
        self._onOffline(False)

    def refresh(self) -> None:
        """Look again for what is missing; an installation that is at work counts as missing to its end."""
        if self._busy:
            return
        self.missing = Installation.missingPackages()
        self._ui.installFrame.setVisible(bool(self.missing))
        text = _(
            "CAML computes with {names}, which Slicer does not have yet. This is needed once and takes some minutes."
        ).format(names=", ".join(self.missing))
        self._ui.installLabel.text = f"{self._fault}\n\n{text}" if self._fault else text

    def problem(self) -> str:
        """Return what is missing, as the tooltip of Apply; empty where nothing is."""
        return (
            _("Install {names} first (top of the panel).").format(names=", ".join(self.missing)) if self.missing else ""
        )

    def install(self) -> bool:
        """Ask once, install, and return whether everything is there; no second time while one is at work."""
        if self._busy or not self._canInstall():
            return False
        question = _(
            "CAML needs {names}. They are downloaded (PyTorch is large) and installed into Slicer's own Python. "
            "Install now?"
        ).format(names=", ".join((*self.missing, *Installation.missingExtras())))
        if not slicer.util.confirmOkCancelDisplay(question, _("CAML Segmentation")):
            return False
        return self._trying(Installation.install)

    def _onInstall(self, checked: bool = False) -> None:
        self.install()

    def _onOffline(self, checked: bool) -> None:
        if checked:
            self._ui.offlineText.html = Installation.offlineInstructions()
        self._ui.offlineText.setVisible(checked)
        self._ui.installFolderButton.setVisible(checked)

    def _onFolder(self, checked: bool = False) -> None:
        if not self._canInstall():
            return
        folder = qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), _("Folder of wheels"), "")
        if folder:
            self._trying(lambda: Installation.installFromFolder(Path(folder)))

    def _canInstall(self) -> bool:
        """Say it before anything is asked for where it cannot be had."""
        try:
            Installation.checkFolder()
        except CamlError as error:
            slicer.util.errorDisplay(str(error))
            return False
        return True

    def _trying(self, action: Any) -> bool:
        if self._busy:
            return False
        self._fault = ""
        try:
            self._showBusy(action)
        except Installation.InstallationToldError as error:
            self._fault = str(error)
        except CamlError as error:
            slicer.util.errorDisplay(str(error))
        finally:
            self.refresh()
            self._onChange()
        return not self.missing

    def _showBusy(self, action: Any) -> None:
        """Act while the panel says that it takes long and takes no click; PyTorch's extension has no window for it."""
        ui = self._ui
        buttons = (ui.installButton, ui.offlineButton, ui.installFolderButton)
        text = _("Installing {names}; Slicer does not answer for some minutes.")
        ui.installLabel.text = text.format(names=", ".join(self.missing))
        self._busy = True
        for button in buttons:
            button.enabled = False
        try:
            with slicer.util.WaitCursor():  # which has the window drawn once
                action()
        finally:
            self._busy = False
            for button in buttons:
                button.enabled = True
