"""The arithmetic of predictions is measured, and the result is remembered for as long as it deserves."""

from __future__ import annotations

from test_predictor import CONFIG, a_network

from caml_core.config import NumericMode
from caml_core.inference import numeric as numeric_module
from caml_core.inference.numeric import choose_numeric


def test_the_arithmetic_is_measured_once_for_a_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("CAML_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(numeric_module, "_PATIENCE", 600.0)  # the machine may be busy
    network, measured = a_network(), []
    first = choose_numeric(network, CONFIG, "cpu", listener=lambda kind, fields: measured.append(kind))
    again = choose_numeric(network, CONFIG, "cpu", listener=lambda kind, fields: measured.append(kind))
    assert first == again and measured == ["stage", "log"]
    assert choose_numeric(network, CONFIG, "cpu", dtype="bf16", threads=3) == NumericMode("bf16", True, 3)
    assert choose_numeric(network, CONFIG, "cpu", dtype="fp32").dtype == "fp32"
    (tmp_path / "cache" / "numeric.json").write_text("no json")
    assert choose_numeric(network, CONFIG, "cpu").dtype in ("fp32", "bf16")


def test_a_measurement_in_haste_is_believed_for_a_while(tmp_path, monkeypatch):
    """Beside a training nothing can be measured well, and predictions of that time must not each pay for it."""
    monkeypatch.setenv("CAML_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(numeric_module, "_PATIENCE", 0.0)
    network, told = a_network(), []

    def chosen() -> NumericMode:
        return choose_numeric(network, CONFIG, "cpu", listener=lambda kind, fields: told.append(kind))

    first = chosen()
    assert first.dtype == "fp32" and chosen() == first and told.count("stage") == 1
    now = numeric_module.time.time()
    monkeypatch.setattr(numeric_module.time, "time", lambda: now + 2 * 3600)
    assert chosen() == first and told.count("stage") == 2
