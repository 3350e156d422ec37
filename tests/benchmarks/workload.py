"""One process of `steady.py`: typical work of the lessons, timed, or repeated as a load for others.

python workload.py measure FOLDER     waits for FOLDER/go, prints its times as JSON
python workload.py load FOLDER        waits for FOLDER/go, works until it is ended
"""

import copy
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import qlearn  # before torch: in here is what sets how threads wait

# isort: split
import torch
import torch.ao.quantization as tq
from torch import nn

ROUNDS = 2  # of all the work, in a measurement


def median_ms(call: Callable[[], object], times: int) -> float:
    """Median time of a call in milliseconds, after one that warms up."""
    call()
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return 1e3 * statistics.median(seconds)


def static_lstm(lstm: nn.Module, ids: torch.Tensor) -> nn.Module:
    """The LSTM of the phrases' model in static int8: many small operators, called from Python."""
    wrapped = tq.QuantWrapper(copy.deepcopy(lstm.lstm)).eval()
    wrapped.qconfig = tq.get_default_qconfig(torch.backends.quantized.engine)
    wrapped.dequant = nn.Identity()
    prepared = tq.prepare(wrapped)
    prepared(lstm.embedding(ids))
    return tq.convert(prepared)


class Work:
    """What is timed."""

    def __init__(self) -> None:
        self.lstm = qlearn.pretrained.phrase_lstm()
        self.resnet = qlearn.pretrained.resnet18("digits")
        self.ids, _ = next(iter(qlearn.loaders(qlearn.data.phrases())[1]))
        self.static = static_lstm(self.lstm, self.ids)
        self.train, self.test = qlearn.loaders(qlearn.data.digits())
        mlp = qlearn.pretrained.mlp()
        self.pair = {"fp32": mlp, "int8": tq.quantize_dynamic(mlp, {nn.Linear})}

    def once(self) -> dict[str, float]:
        """Do all of it once."""
        one, picture = self.ids[:1], torch.randn(1, 3, 224, 224)
        with torch.no_grad():
            embedded = self.lstm.embedding(one)
            found = {
                "LSTM, ms": median_ms(lambda: self.lstm(one), 40),
                "ResNet-18, ms": median_ms(lambda: self.resnet(picture), 6),
                "static LSTM, ms": median_ms(lambda: self.static(embedded), 15),
            }
        found["training, s"] = self.seconds_of_training()
        start = time.perf_counter()
        images, _ = next(iter(self.test))
        qlearn.compare(self.pair, images[:1], self.test, seconds=0.2)
        return found | {"compare, s": time.perf_counter() - start}

    def seconds_of_training(self) -> float:
        """Fifteen steps of the depthwise CNN."""
        model = qlearn.models.DepthwiseCNN().train()
        optimizer = torch.optim.Adam(model.parameters())
        start = time.perf_counter()
        for _, (images, labels) in zip(range(15), self.train, strict=False):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
        return time.perf_counter() - start


def main(task: str, folder: Path) -> None:
    """Prepare, say so, wait for the others, and work."""
    work = Work()
    (folder / f"ready-{os.getpid()}").touch()
    while not (folder / "go").exists():
        time.sleep(0.01)
    if task == "load":
        while True:
            work.once()
    time.sleep(1)  # until the others are in the middle of theirs
    rounds = [work.once() for _ in range(ROUNDS)]
    print(json.dumps({name: statistics.fmean(one[name] for one in rounds) for name in rounds[0]}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
