"""Three models of exercise 2's clinic: each is called int8, and each is ill in another way."""

import copy
import itertools
from pathlib import Path

import torch
import torch.ao.quantization as tq
from torch import Tensor, nn

ILLNESSES = ("scale", "float16", "decoy")
WARDS = ("a", "b", "c")


def patients(order: int, folder: str | Path = "patients") -> dict[str, Path]:
    """Write the three models as TorchScript, each of N×length character ids to N×15 logits.

    Parameters
    ----------
    order
        From 0 to 5: which of them is called "a", which "b" and which "c".

    Returns
    -------
    dict
        The files by these names.
    """
    from qlearn import pretrained

    model = pretrained.phrase_lstm()
    made = {
        "scale": _with_a_scale_of_one(model),
        "float16": _Halved(model).eval(),
        "decoy": _Decoy(model).eval(),
    }
    Path(folder).mkdir(exist_ok=True)
    files = {}
    for name, illness in zip(WARDS, illnesses(order), strict=True):
        files[name] = Path(folder, f"{name}.pt")
        torch.jit.script(made[illness]).save(str(files[name]))
    return files


def illnesses(order: int) -> tuple[str, ...]:
    """Return what "a", "b" and "c" have: "scale", "float16" and "decoy" in this order."""
    return [*itertools.permutations(ILLNESSES)][order]


class _Stubbed(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.embedding, self.lstm, self.fc = model.embedding, model.lstm, model.fc
        self.quant, self.dequant = tq.QuantStub(), tq.DeQuantStub()

    def forward(self, ids: Tensor) -> Tensor:
        outputs, _ = self.lstm(self.quant(self.embedding(ids)))
        return self.dequant(self.fc(outputs[:, -1]))


def _with_a_scale_of_one(model: nn.Module) -> nn.Module:
    """Calibrate a static model, and leave the observer of its last layer out."""
    from qlearn import data

    stubbed = _Stubbed(copy.deepcopy(model)).eval()
    stubbed.qconfig = tq.get_default_qconfig(torch.backends.quantized.engine)
    stubbed.embedding.qconfig = None
    prepared = tq.prepare(stubbed)
    with torch.no_grad():
        prepared(data.phrases().train.inputs[:64])
    converted = tq.convert(prepared)
    converted.fc.scale, converted.fc.zero_point = 1.0, 64
    return converted


class _Halved(nn.Module):
    """Weights of 16 bits in a model that takes and gives what the others do.

    `quantize_dynamic(…, dtype=torch.float16)` would do so too, but qnnpack, the engine of Arm, and
    onednn refuse to pack such weights.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).half()

    def forward(self, ids: Tensor) -> Tensor:
        return self.model(ids).float()


class _Decoy(nn.Module):
    """A float model beside an int8 one, which no input reaches."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.shown = tq.quantize_dynamic(model, {nn.LSTM, nn.Linear})
        self.used = model

    def forward(self, ids: Tensor) -> Tensor:
        if ids.size(1) == 0:
            return self.shown(ids)
        return self.used(ids)
