"""What test cells call: each raises AssertionError with one sentence for a learner.

Every check measures the artifact. None asserts an absolute time.
"""

from qlearn.exercises.checks.behaviour import (
    accuracy,
    accuracy_at_least,
    agrees_with,
    exists,
    is_near,
    looks_at_its_input,
    operator_calls,
    runs,
    variant,
)
from qlearn.exercises.checks.claims import (
    claim_close,
    dict_has,
    no_rows_but,
    number,
    numbers_in,
    smaller_than,
    table_has,
    text_in,
)
from qlearn.exercises.checks.execution import levels_used, operators_run
from qlearn.exercises.checks.layers import (
    activation_scales,
    operators,
    quantized_layers,
    quantized_weights,
    weight_schemes,
    weight_types,
)
from qlearn.exercises.checks.quantization import (
    is_calibrated,
    is_quantized,
    is_trained_with_rounding,
    runs_in_int8,
    weights_on_grid,
)
from qlearn.exercises.checks.speed import (
    as_measured,
    faster_claim_holds,
    latencies_fit,
    measured_elsewhere,
    speedup_of,
    speedups_hold,
    verdict,
)

__all__ = [
    "accuracy",
    "accuracy_at_least",
    "activation_scales",
    "agrees_with",
    "as_measured",
    "claim_close",
    "dict_has",
    "exists",
    "faster_claim_holds",
    "is_calibrated",
    "latencies_fit",
    "is_near",
    "is_quantized",
    "is_trained_with_rounding",
    "levels_used",
    "looks_at_its_input",
    "measured_elsewhere",
    "no_rows_but",
    "number",
    "numbers_in",
    "operator_calls",
    "operators",
    "operators_run",
    "quantized_layers",
    "quantized_weights",
    "runs",
    "runs_in_int8",
    "smaller_than",
    "speedup_of",
    "speedups_hold",
    "table_has",
    "text_in",
    "variant",
    "verdict",
    "weight_schemes",
    "weight_types",
    "weights_on_grid",
]
