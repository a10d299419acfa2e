"""The order in which cases are suggested, where two models have segmented them."""

from __future__ import annotations

from test_training_predictions import CASES, a_round, worker  # noqa: F401
from training_tools import finish_round


def test_disagreement_of_two_models_is_not_compared(a_round, worker, stand_in, tmp_path):  # noqa: F811
    from caml_core.model_file import load_model, save_model

    panel = a_round
    panel.ui.predictButton.click()
    for case, agreement in zip(CASES, (0.9, 0.5, 0.6, 0.8)):
        worker().segment(case)
        panel.logic.project.update(case, agreement={"ball": agreement})
    worker().finish()
    ranked = panel.logic.suggest()
    assert [one.case for one in ranked] == ["case-01", "case-02", "case-03", "case-00"]
    assert not any("another model" in one.reason for one in ranked)
    model = load_model(stand_in)
    state = {name: 2 * weights if weights.is_floating_point() else weights for name, weights in model.state.items()}
    save_model(tmp_path / "second.caml", spec=model.spec, state=state, info=model.info)
    finish_round(panel, 2, tmp_path / "second.caml")
    assert panel.logic.suggest() == ranked, "as long as one model alone has segmented them"
    panel.ui.predictButton.click()
    for case, agreement in (("case-00", 0.9), ("case-03", 0.7)):
        worker().segment(case)
        panel.logic.project.update(case, agreement={"ball": agreement})
    panel.ui.cancelPredictButton.click()
    worker().finish(130)
    ranked = panel.logic.suggest()
    assert [one.case for one in ranked] == ["case-03", "case-00", "case-01", "case-02"]
    assert ["another model" in one.reason for one in ranked] == [False, False, True, True]
