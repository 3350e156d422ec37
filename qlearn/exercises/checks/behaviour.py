"""Assertions about what a model does with inputs."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from qlearn.calibration import sqnr
from qlearn.exercises import Answer, answers, draw, output_of, under
from qlearn.exercises import run as this_run
from qlearn.exercises.run import fixed_learner, same_learner
from qlearn.system.errors import explain

EXACT = 80  # dB, far above 8 bits and far below float rounding


def exists(name: str, suffixes: Sequence[str] = ()) -> Answer:
    """Return an answer that is there and can be read.

    Parameters
    ----------
    name
        As it was given to `qlearn.submit`.
    suffixes
        Endings of files that are accepted, such as ``(".pt",)``; any when empty.
    """
    answer = answers()[name]
    assert not suffixes or answer.path.suffix in suffixes, (
        f"The answer {name!r} is {answer.article_and_kind}; hand in one that ends in "
        f"{' or '.join(suffixes)}."
    )
    answer.load()
    return answer


def variant(exercise: str) -> dict[str, int]:
    """Return what was drawn for the learner who handed in, as `qlearn.start` returned it.

    An instructor may have said who that is: then the answers must say the same.
    """
    learner = exists("learner", (".json",)).load()
    assert isinstance(learner, str) and learner.strip(), (
        "The answer 'learner' is no name: run the first cell, with your name or student id."
    )
    owner = fixed_learner() or learner
    assert same_learner(owner, learner), (
        f"These answers are of {learner!r}, and this is the work of {owner!r}: leave qlearn.start "
        "of the first cell as it was given, and hand in no other 'learner'."
    )
    return draw(exercise, learner)


def runs(answer: Answer, inputs: Tensor, batch: int | None = None) -> Tensor:
    """Run a model on its engine and return its output: finite, N×classes, one row an input.

    Parameters
    ----------
    batch
        Give it so many inputs at a time, for a file that takes no other number; all at once if
        None.
    """

    def run() -> Tensor:
        model = _model(answer)
        parts = inputs.split(batch or len(inputs))
        return torch.cat([_output(answer.name, model, part) for part in parts])

    with under(answer.made_with):  # packed weights belong to the engine that they were made for
        return output_of(answer.path, inputs, batch, run)


def _model(answer: Answer) -> Callable[[Tensor], Tensor]:
    model = answer.load()
    assert callable(model), (
        f"The answer {answer.name!r} is {answer.article_and_kind}: hand in the model."
    )
    return model


def _reason(error: Exception) -> str:
    """Say why a model failed: its own words to its author only, as they may be a hidden input."""
    if this_run.begun:
        return explain(error)
    return f"{type(error).__name__}; run it on such inputs in your notebook to read why"


def _form(output: object) -> str:
    """Say what a model gave; the numbers of its shape, which it chose, to its author only."""
    if not isinstance(output, Tensor):
        return type(output).__name__
    return str(tuple(output.shape)) if this_run.begun else "a tensor of another shape"


def _output(name: str, model: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    try:
        with torch.no_grad():
            # A copy: a model that changes its input must not change what others are measured on.
            output = model(inputs.clone())
    except Exception as error:
        raise AssertionError(
            f"The model {name!r} does not run on {tuple(inputs.shape)}: {_reason(error)}."
        ) from None
    assert not (isinstance(output, Tensor) and output.is_quantized), (
        f"The model {name!r} returns a quantized tensor, and logits are floats: end it with a "
        "DeQuantStub, or dequantize its output."
    )
    matrix = isinstance(output, Tensor) and output.dim() == 2 and output.shape[1] > 0
    assert matrix and len(output) == len(inputs), (
        f"The model {name!r} must return one tensor with a row of logits for each input, and gives "
        f"{_form(output)} for {len(inputs)}."
    )
    assert torch.isfinite(output).all(), (
        f"The model {name!r} returns values that are not finite: check its scales."
    )
    return output


def looks_at_its_input(answer: Answer, inputs: Tensor) -> None:
    """Assert that different inputs do not all get the same output."""
    output = runs(answer, inputs)
    assert len(output.unique(dim=0)) > 1, (
        f"The model {answer.name!r} gives every input the same output: it ignores its input."
    )


def agrees_with(
    answer: Answer, reference: Callable[[Tensor], Tensor], inputs: Tensor, share: float
) -> None:
    """Assert that the model predicts the reference's class for a share in [0, 1] of the inputs."""
    with torch.no_grad():
        wanted = reference(inputs)
    output = _alike(answer, inputs, wanted)
    same = (output.argmax(1) == wanted.argmax(1)).double().mean().item()
    assert same >= share, (
        f"The model {answer.name!r} agrees with the original on {same:.1%} of the inputs; "
        f"{share:.0%} is asked for, so something in it is not the original's."
    )


def _alike(answer: Answer, inputs: Tensor, wanted: Tensor) -> Tensor:
    """Return a model's output, which has the shape of the reference's."""
    output = runs(answer, inputs)
    assert output.shape == wanted.shape, (
        f"The model {answer.name!r} gives {_form(output)}, and the original "
        f"{tuple(wanted.shape)}: hand in a model of the same classes."
    )
    return output


def is_near(
    answer: Answer, reference: Callable[[Tensor], Tensor], inputs: Tensor, decibels: float
) -> None:
    """Assert that outputs are as near to the reference's as rounding leaves them, and no nearer.

    Parameters
    ----------
    decibels
        The signal-to-noise ratio to reach. Over 80 dB nothing was rounded to 8 bits.
    """
    with torch.no_grad():
        wanted = reference(inputs)
    found = sqnr(wanted, _alike(answer, inputs, wanted))
    assert found >= decibels, (
        f"The outputs of {answer.name!r} are {found:.0f} dB from the original's, and "
        f"{decibels:.0f} dB are asked for: start from the given model, and calibrate with data "
        "like those it will see."
    )
    assert found < EXACT, (
        f"The outputs of {answer.name!r} are the original's to the last bit: no layer that decides "
        "them was rounded to 8 bits."
    )


def accuracy(answer: Answer, test: Iterable) -> float:
    """Measure the accuracy of a model over batches of (inputs, labels), in [0, 1]."""
    right, total = 0, 0
    for inputs, labels in test:
        right += (runs(answer, inputs).argmax(1) == labels).sum().item()
        total += len(labels)
    return right / total


def accuracy_at_least(answer: Answer, test: Iterable, minimum: float) -> None:
    """Assert that the model's accuracy, measured here, is at least a minimum in [0, 1]."""
    found = accuracy(answer, test)
    assert found >= minimum, (
        f"The model {answer.name!r} is right on {found:.1%} of the test set; at least "
        f"{minimum:.1%} is asked for."
    )


def operator_calls(answer: Answer, operator: str, inputs: Tensor) -> int:
    """Count the calls of an operator, such as "quantized::linear", in one forward pass.

    The profiler counts them, so loops are unrolled.
    """
    model, inputs = _model(answer), inputs.clone()
    _output(answer.name, model, inputs)
    with torch.no_grad():
        for _ in range(3):  # TorchScript optimizes itself then, and that is slow to profile
            model(inputs)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            model(inputs)
    return sum(event.count for event in profile.key_averages() if event.key == operator)
