"""The phone lab: a phone's own browser times fp32 against int8 and reports back."""

from qlearn.phone.bundle import MODELS
from qlearn.phone.chromium import run_in_chromium
from qlearn.phone.results import figure, table
from qlearn.phone.session import PhoneLab, serve

__all__ = ["MODELS", "PhoneLab", "figure", "run_in_chromium", "serve", "table"]
