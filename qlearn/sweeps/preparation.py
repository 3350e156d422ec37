"""The sweeps and the study that `qlearn prepare --all` makes before a lesson asks for them."""

from qlearn import pretrained
from qlearn.quantization.schemes import ALL
from qlearn.sweeps.few_bits import keep_study
from qlearn.sweeps.sweeping import sweep

# Base models and batches: one sample, and lesson 07's server.
SWEEPS = ((pretrained.mlp, 1), (pretrained.small_cnn, 1), (pretrained.depthwise_cnn, 1),
          (pretrained.phrase_lstm, 1), (pretrained.phrase_lstm, 32))  # fmt: skip


def prepare_sweeps(force: bool = False) -> dict[str, str]:
    """Sweep every scheme over each of the course's own models, and make the study of few bits.

    Returns
    -------
    dict of str
        For each sweep how many rows have numbers; for the study "made" or "there".
    """
    states = {}
    for load, batch in SWEEPS:
        name = load.__name__
        samples = pretrained.RECIPES[name].data()
        table = sweep(load(), ALL, samples, batch=batch, force=force)
        done = f"{table['accuracy'].notna().sum()} of {len(table)} schemes"
        states[f"sweep of {name}, batch {batch}"] = done
    return states | {"study of few bits": keep_study(force)}
