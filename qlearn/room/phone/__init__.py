"""The phone lab: a phone's own browser times fp32 against int8 and reports back."""

from qlearn.room.phone.chromium import run_in_chromium
from qlearn.room.phone.model_files import MODELS
from qlearn.room.phone.results import figure, table
from qlearn.room.phone.session import PhoneLab, serve

__all__ = ["MODELS", "PhoneLab", "figure", "run_in_chromium", "serve", "table"]
