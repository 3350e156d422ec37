"""The orderings of Krishnamoorthi 2018 and Nagel 2019, 2021, on three seeds of small studies."""

import functools

import pandas as pd
import pytest

from qlearn import data
from qlearn.sweeps import few_bits


@pytest.fixture(scope="module", autouse=True)
def float_models():
    """The float models of a seed are the same in each study: they are trained once."""
    digits = data.digits()
    train = functools.cache(functools.partial(few_bits._float_model, digits))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(few_bits, "_float_model", lambda _, seed, epochs: train(seed, epochs))
        yield


@pytest.fixture(scope="module")
def study():
    """Three seeds, weights of 4 bits, calibrated and repaired: some seconds a seed."""
    return few_bits.low_bit_study(
        seeds=(0, 1, 2), bits=(4,), orders=(0,), float_epochs=3, methods=("PTQ", "repaired")
    )


@pytest.mark.long
def test_every_combination_has_a_row_for_every_seed(study):
    assert (study.groupby(["bits", "scales", "method"])["seed"].nunique() == 3).all()
    assert study["accuracy"].between(0, 1).all()


@pytest.mark.long
def test_a_cell_does_not_depend_on_which_cells_ran_before_it():
    few = {"seeds": (0,), "bits": (3,), "orders": (1,), "float_epochs": 1, "qat_epochs": 1}
    keys = ["order", "bits", "scales", "method"]
    both = few_bits.low_bit_study(**few, methods=("PTQ", "QAT")).set_index(keys)["accuracy"]
    alone = few_bits.low_bit_study(**few, methods=("QAT",)).set_index(keys)["accuracy"]
    assert both[alone.index].equals(alone)


@pytest.mark.long
def test_in_four_bits_repair_wins_on_every_seed_and_scales_per_channel_in_the_mean(study):
    by_seed = study.set_index(["seed", "scales", "method"])["accuracy"].unstack([1, 2])
    plain, channel = by_seed["per tensor", "PTQ"], by_seed["per channel", "PTQ"]
    assert (by_seed["per tensor", "repaired"] > plain).all(), by_seed
    assert by_seed["per tensor", "repaired"].mean() > plain.mean() + 0.1, by_seed
    assert channel.mean() > plain.mean() + 0.1, by_seed


@pytest.mark.long
def test_in_three_bits_the_papers_order_comes_out():
    """Calibrated, repaired, trained from the equalized model; and training helps on its own."""
    methods = ("PTQ", "repaired", "QAT", "equalized, QAT")
    study = few_bits.low_bit_study(
        seeds=(0, 1, 2), bits=(3,), orders=(0,), float_epochs=3, qat_epochs=2, methods=methods
    )
    means = study.groupby(["scales", "method"])["accuracy"].mean()
    plain, repaired, trained, both = (means["per tensor", method] for method in methods)
    assert plain + 0.05 < repaired < both, means
    assert plain + 0.05 < trained, means
    for method in methods[:2]:
        assert means["per channel", method] > means["per tensor", method], means


@pytest.mark.parametrize("wrong", [{"methods": ["repared"]}, {"bits": [2]}])
def test_a_method_or_width_that_the_study_does_not_know_is_refused(wrong):
    with pytest.raises(ValueError, match="knows no others"):
        few_bits.low_bit_study(**wrong)


def test_a_kept_study_is_read_back(tmp_path, monkeypatch):
    study = pd.DataFrame({"seed": [0, 1], "scales": ["", "per tensor"], "accuracy": [0.5, 0.25]})
    monkeypatch.setenv("QLEARN_HOME", str(tmp_path))
    monkeypatch.setattr(few_bits, "low_bit_study", lambda: study)
    assert few_bits.kept_study() is None
    assert [few_bits.keep_study(), few_bits.keep_study()] == ["made", "there"]
    assert few_bits.keep_study(force=True) == "made"
    assert few_bits.kept_study().equals(study)
