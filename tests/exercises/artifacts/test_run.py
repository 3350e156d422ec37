"""Answers belong to the run of the notebook that made them, and a variant to its learner."""

import pytest
import torch
from torch import nn

import qlearn
from qlearn import checks
from qlearn.exercises import draw, run


@pytest.fixture(autouse=True)
def no_run(monkeypatch):
    """No run has begun, and none goes on after the test."""
    monkeypatch.setattr(run, "_handed_in", None)
    monkeypatch.delenv(run.LEARNER, raising=False)


def test_answers_of_an_earlier_run_do_not_count_until_they_are_handed_in_again():
    qlearn.submit("share", 0.5)
    assert checks.exists("share").load() == 0.5
    qlearn.start("ex1", "ada")
    assert "share" not in qlearn.answers()
    with pytest.raises(AssertionError, match=r"earlier run .*qlearn.submit\('share', …\), again"):
        checks.exists("share")
    with pytest.raises(AssertionError, match="There is no answer 'table' yet"):
        checks.exists("table")
    qlearn.submit("share", 0.25)
    assert checks.exists("share").load() == 0.25


def test_whoever_grades_in_another_process_sees_them_all(monkeypatch):
    qlearn.start("ex1", "ada")
    qlearn.submit("share", 0.5)
    monkeypatch.setattr(run, "_handed_in", None)
    assert set(qlearn.answers()) == {"learner", "share"}


def test_a_failed_submission_counts_no_earlier_one_as_this_runs():
    qlearn.submit("model", nn.Linear(3, 2).eval(), torch.rand(2, 3))
    qlearn.start("ex1", "ada")
    with pytest.raises(ValueError, match="training mode"):
        qlearn.submit("model", nn.Linear(3, 2), torch.rand(2, 3))
    assert "model" not in qlearn.answers()


def test_a_variant_is_the_learners_own_and_the_same_everywhere():
    mine = qlearn.start("ex4", "Ada Lovelace")
    assert mine == draw("ex4", " ada lovelace ") == checks.variant("ex4")
    some = {tuple(draw("ex4", f"student {number}").values()) for number in range(20)}
    assert len(some) > 12
    assert draw("ex3", "ada") == {}
    assert qlearn.start("ex4", 12345) == draw("ex4", "12345")
    assert qlearn.answers()["learner"].load() == "12345"


def test_an_instructors_word_goes_before_the_learners(monkeypatch):
    monkeypatch.setenv(run.LEARNER, "s12345")
    assert qlearn.start("ex1", "somebody else") == draw("ex1", "s12345") == checks.variant("ex1")


@pytest.mark.parametrize("learner", ["", "  ", None, True, 7.5])
def test_no_name_gets_a_sentence(learner):
    with pytest.raises(ValueError, match="give your name or student id"):
        qlearn.start("ex1", learner)


@pytest.mark.parametrize("value", [3, "", ["ada"]])
def test_an_answer_that_is_no_name_gets_a_sentence(value):
    qlearn.submit("learner", value)
    with pytest.raises(AssertionError, match="run the first cell"):
        checks.variant("ex1")
