# The names that `__init__.py` imports on first use, for editors; a test holds the two together.
# Jedi, JupyterLab's own, goes by `as`; Pyright goes by `__all__` where the names differ.

from qlearn.benchmarking import compare as compare
from qlearn.benchmarking import latency as latency
from qlearn.benchmarking import model_size as model_size
from qlearn.calibration import calibrate as calibrate
from qlearn.calibration import observer_study as observer_study
from qlearn.calibration import record as record
from qlearn.calibration import sqnr as sqnr
from qlearn.data import loaders as loaders
from qlearn.exercises import answers as answers
from qlearn.exercises import checks as checks
from qlearn.exercises import start as start
from qlearn.exercises import submit as submit
from qlearn.exercises.hints import hint as hint
from qlearn.exercises.your_turn import against as against
from qlearn.exercises.your_turn import your_turn as your_turn
from qlearn.export import arm as arm
from qlearn.export import device as device
from qlearn.plotting import comparison as comparison
from qlearn.plotting import grid_histogram as grid_histogram
from qlearn.plotting import pareto_fronts as pareto_fronts
from qlearn.plotting import play as play
from qlearn.plotting import show as show
from qlearn.quantization import equalization as repair
from qlearn.quantization import qconfigs as qconfigs
from qlearn.quantization import schemes as schemes
from qlearn.quantization import sensitivity as layerwise
from qlearn.quantization.adaround import adaround as adaround
from qlearn.quantization.equalization import correct_bias as correct_bias
from qlearn.quantization.equalization import equalize as equalize
from qlearn.quantization.lsq import LearnedStep as LearnedStep
from qlearn.quantization.mixed_precision import mixed_precision as mixed_precision
from qlearn.quantization.sensitivity import layer_errors as layer_errors
from qlearn.quantization.sensitivity import sensitivity as sensitivity
from qlearn.room import phone as phone
from qlearn.room.learner import join as join
from qlearn.room.learner import leave as leave
from qlearn.room.learner import raise_hand as raise_hand
from qlearn.room.learner import share as share
from qlearn.sweeps import few_bits as low_bits
from qlearn.sweeps.few_bits import low_bit_study as low_bit_study
from qlearn.sweeps.pareto import pareto as pareto
from qlearn.sweeps.sweeping import sweep as sweep
from qlearn.system import deprecations as deprecations
from qlearn.system import doctor as doctor
from qlearn.training import evaluate as evaluate
from qlearn.training import fit as fit

from . import benchmarking as benchmarking
from . import calibration as calibration
from . import data as data
from . import export as export
from . import models as models
from . import plotting as plotting
from . import pretrained as pretrained

__version__: str
__all__ = [
    "deprecations",
    "arm",
    "benchmarking",
    "calibration",
    "checks",
    "data",
    "device",
    "doctor",
    "export",
    "layerwise",
    "low_bits",
    "models",
    "phone",
    "plotting",
    "pretrained",
    "qconfigs",
    "repair",
    "schemes",
    "LearnedStep",
    "adaround",
    "against",
    "answers",
    "calibrate",
    "compare",
    "comparison",
    "correct_bias",
    "equalize",
    "evaluate",
    "fit",
    "grid_histogram",
    "hint",
    "join",
    "latency",
    "layer_errors",
    "leave",
    "loaders",
    "low_bit_study",
    "mixed_precision",
    "model_size",
    "observer_study",
    "pareto",
    "pareto_fronts",
    "play",
    "raise_hand",
    "record",
    "sensitivity",
    "share",
    "show",
    "sqnr",
    "start",
    "submit",
    "sweep",
    "your_turn",
]
