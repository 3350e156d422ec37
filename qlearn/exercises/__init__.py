"""Hand in models and tables as data, and read them back.

Whoever grades measures the artifact, never a Python object of the learner's: a model is written
as TorchScript, as an exported program or as an ExecuTorch file, a table as JSON. None of them
carries code of the author.
"""

from qlearn.exercises.conditions import under
from qlearn.exercises.keeping import output_of
from qlearn.exercises.reading import Answer, answers
from qlearn.exercises.run import draw, start
from qlearn.exercises.writing import submit

__all__ = ["Answer", "answers", "draw", "output_of", "start", "submit", "under"]
