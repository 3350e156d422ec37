"""A release that nobody has worked on gets nothing, and each of its messages says what to do."""

import pytest
import runner


@pytest.mark.parametrize("exercise", runner.EXERCISES)
def test_an_untouched_release_gets_nothing_and_is_told_what_to_do(exercise, tmp_path, base_models):
    result = runner.grade(exercise, {}, tmp_path)
    assert set(result.points.values()) == {0}
    for name, message in result.messages.items():
        assert "run the work cell" in message and "qlearn.submit(" in message, name
    runner.assert_every_message_helps(result)
    # A phone's report and the clinic are worth no points, and need not be there.
    assert result.points.keys() - result.messages.keys() <= {"test-phone", "test-clinic"}
