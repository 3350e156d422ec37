"""Names that lessons and learners' notebooks use, whatever the modules behind them are called."""

import qlearn


def test_modules_answer_to_the_names_that_notebooks_use():
    from qlearn import layerwise, low_bits, qconfigs, repair, schemes

    assert callable(layerwise.layer_errors) and callable(layerwise.sensitivity)
    assert callable(low_bits.kept_study) and callable(qconfigs.weight_qconfig)
    assert callable(repair.fold) and "fp32" in schemes.ALL


def test_a_function_stays_a_function_when_its_module_is_imported():
    import qlearn.quantization.adaround
    import qlearn.quantization.mixed_precision
    import qlearn.quantization.sensitivity  # noqa: F401
    import qlearn.sweeps.pareto

    for name in ("adaround", "mixed_precision", "pareto", "sensitivity"):
        assert callable(getattr(qlearn, name)), name


def test_every_public_name_is_there():
    for name in qlearn.__all__:
        assert getattr(qlearn, name) is not None
