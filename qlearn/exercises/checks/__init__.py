"""What test cells call: each raises AssertionError with one sentence for a learner.

Every check measures the artifact. None asserts an absolute time.
"""

from qlearn.exercises.checks.behaviour import (
    accuracy,
    accuracy_at_least,
    agrees_with,
    exists,
    looks_at_its_input,
    operator_calls,
    runs,
)
from qlearn.exercises.checks.claims import claim_close, smaller_than, table_has
from qlearn.exercises.checks.layers import (
    activation_scales,
    operators,
    quantized_layers,
    quantized_weights,
    weight_schemes,
    weight_types,
)
from qlearn.exercises.checks.quantization import is_calibrated, is_quantized, weights_on_grid
from qlearn.exercises.checks.speed import as_measured, faster_claim_holds

__all__ = [
    "accuracy",
    "accuracy_at_least",
    "activation_scales",
    "agrees_with",
    "as_measured",
    "claim_close",
    "exists",
    "faster_claim_holds",
    "is_calibrated",
    "is_quantized",
    "looks_at_its_input",
    "operator_calls",
    "operators",
    "quantized_layers",
    "quantized_weights",
    "runs",
    "smaller_than",
    "table_has",
    "weight_schemes",
    "weight_types",
    "weights_on_grid",
]
