"""Quantization schemes by name: the registry that ``qlearn.sweep`` runs through.

A scheme is a function of a float model in eval mode and of a training loader. It returns another
model, which takes and gives float32, and does not change the first. It raises an exception when
the model, or this machine, does not allow it. Each docstring shows the calls that matter; where a
function makes several schemes, the last line names the options.
"""

import copy
import inspect
import itertools
from collections.abc import Callable, Iterable
from functools import partial

import torch
import torch.ao.quantization as tq
from torch import Tensor, nn
from torch.ao.quantization.quantize_fx import prepare_qat_fx
from torch.utils.data import DataLoader

from qlearn.calibration import calibrate, inputs_of
from qlearn.quantization.fx import convert_clipped, fx_mapping, quantize_fx
from qlearn.quantization.pt2e import Program, lower_to_xnnpack, quantize_for_xnnpack
from qlearn.quantization.qconfigs import fake_quantizer, weight_qconfig
from qlearn.quantization.weight_only import int4_calibrated, int4_packed
from qlearn.training import fit

Scheme = Callable[[nn.Module, DataLoader], nn.Module]

CALIBRATION_BATCHES = 8
QAT_EPOCHS = 2
# Of QAT, by bits: at 8 a good model needs little, and a usual rate would do it harm.
LEARNING_RATES = {8: 1e-4, 4: 1e-3, 3: 1e-3}
FUSABLE = ([nn.Conv2d, nn.BatchNorm2d, nn.ReLU], [nn.Conv2d, nn.BatchNorm2d],
           [nn.Conv2d, nn.ReLU], [nn.Linear, nn.ReLU])  # fmt: skip


def fp32(model: nn.Module, train: DataLoader) -> nn.Module:
    """Return the float model itself, which the others are compared with."""
    return model


class Cast(nn.Module):
    """A copy of a model in another float type, which takes and gives float32."""

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).to(dtype)
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        """Return the model's float32 outputs; integer inputs (ids) are not cast."""
        x = x.to(self.dtype) if x.is_floating_point() else x
        return self.model(x).float()


def cast(model: nn.Module, train: DataLoader, dtype: torch.dtype) -> nn.Module:
    """Hold weights and compute in 16-bit floats.

    ``copy.deepcopy(model).to(dtype)``, its inputs cast to ``dtype`` and its outputs to float32
    """
    return Cast(model, dtype).eval()


def int8_dynamic(model: nn.Module, train: DataLoader) -> nn.Module:
    """Hold int8 weights; find the activations' ranges at every call. The rest stays float.

    ``quantize_dynamic(model, {nn.Linear, nn.LSTM, nn.GRU}, dtype=torch.qint8)``
    """
    kinds = {nn.Linear, nn.LSTM, nn.GRU}
    if not any(type(module) in kinds for module in model.modules()):
        raise ValueError("there is nothing to quantize: no Linear, LSTM or GRU layer")
    return tq.quantize_dynamic(model, kinds, dtype=torch.qint8)


def static_eager(model: nn.Module, train: DataLoader, per_channel: bool) -> nn.Module:
    """Compute in int8, with ranges found beforehand (eager mode).

    ``fused = fuse_modules(QuantWrapper(model), groups)``; ``fused.qconfig = QConfig(
    get_default_qconfig("x86").activation, observer)``, where the weights' observer is a symmetric
    ``MinMaxObserver`` or ``PerChannelMinMaxObserver`` of qint8; ``prepared = prepare(fused)``; run
    it on some batches; ``convert(prepared)``

    Raises
    ------
    ValueError
        If the inputs are integers, or if fusing layers that are defined one after the other
        changes what the model computes.
    """
    example = inputs_of(next(iter(train)))
    if not example.is_floating_point():
        raise ValueError(
            "its inputs are integers, which QuantWrapper would quantize: eager mode needs a "
            "QuantStub behind the embedding, set by hand (exercise 2 does it)"
        )
    # Step 1: quantize at the entrance, dequantize at the exit.
    wrapped = tq.QuantWrapper(copy.deepcopy(model)).eval()
    # Step 2: fuse batch norms and ReLUs into the layers before them.
    groups = _fusable_groups(wrapped)
    fused = tq.fuse_modules(wrapped, groups) if groups else wrapped
    with torch.no_grad():
        if not torch.allclose(fused(example), model(example), rtol=1e-3, atol=1e-4):
            raise ValueError(
                "fusing neighbours changed the model's outputs: its layers are not called in the "
                "order of their definition, so eager mode needs a fusion list made by hand"
            )
    # Step 3: insert observers, calibrate them, and convert to int8 layers.
    fused.qconfig = weight_qconfig(8, per_channel)
    prepared = tq.prepare(fused)
    calibrate(prepared, train, CALIBRATION_BATCHES)
    return tq.convert(prepared)


def _fusable_groups(model: nn.Module) -> list[list[str]]:
    """Names of layers that eager mode can fuse and that follow one another in their parent."""
    groups = []
    for prefix, parent in model.named_modules():
        children = [(f"{prefix}.{name}".lstrip("."), m) for name, m in parent.named_children()]
        while children:
            kinds = [type(module) for _, module in children]
            chain = next((c for c in FUSABLE if kinds[: len(c)] == c), [])
            if chain:
                groups.append([name for name, _ in children[: len(chain)]])
            children = children[max(1, len(chain)) :]
    return groups


def static_fx(
    model: nn.Module,
    train: Iterable[Tensor | tuple[Tensor, Tensor]],
    per_channel: bool = True,
    bits: int = 8,
) -> nn.Module:
    """Compute in int8, with ranges found beforehand (FX mode).

    It is calibrated on the first `CALIBRATION_BATCHES` of ``train``.

    ``mapping = get_default_qconfig_mapping("x86").set_global(qconfig)``, the qconfig as in eager
    mode; ``prepared = prepare_fx(model, mapping, (images,))``; run it on some batches;
    ``convert_fx(prepared)``
    """
    qconfig = weight_qconfig(bits, per_channel)
    example = inputs_of(next(iter(train)))
    batches = itertools.islice(train, CALIBRATION_BATCHES)
    return quantize_fx(model, fx_mapping(qconfig), example, batches)


def qat(
    model: nn.Module,
    train: DataLoader,
    bits: int,
    weight: Callable[[], nn.Module] | None = None,
    epochs: int = QAT_EPOCHS,
) -> nn.Module:
    """Fine-tune with rounded weights (``bits`` bits, per channel) and activations (8 bits).

    ``prepared = prepare_qat_fx(model.train(), mapping, (images,))``; train it, the last of
    several epochs with batch norm and observers frozen; ``convert_fx(prepared.eval())``

    ``weight`` makes another fake quantizer for the weights, as a QConfig asks for it.
    """
    # Step 1: insert fake quantizers, whose rounding passes gradients on unchanged.
    engine = torch.backends.quantized.engine
    qconfig = tq.QConfig(
        activation=tq.get_default_qat_qconfig(engine).activation,
        weight=weight or fake_quantizer(bits, per_channel=True),
    )
    example = inputs_of(next(iter(train)))
    prepared = prepare_qat_fx(copy.deepcopy(model).train(), fx_mapping(qconfig), (example,))
    # Step 2: fine-tune, the last epoch with ranges and batch-norm statistics frozen.
    freeze = partial(_freeze, last=epochs)
    fit(prepared, train, epochs=epochs, learning_rate=LEARNING_RATES[bits], on_epoch=freeze)
    # Step 3: convert the fake quantizers to int8 layers.
    return convert_clipped(prepared)


def _freeze(model: nn.Module, epoch: int, last: int) -> None:
    if epoch == last > 1:  # a first epoch needs its observers
        model.apply(tq.disable_observer)
        model.apply(torch.ao.nn.intrinsic.qat.freeze_bn_stats)


def pt2e(model: nn.Module, train: DataLoader) -> nn.Module:
    """Compute in int8 in ExecuTorch's XNNPACK, from a graph of ``torch.export`` (PT2E).

    ``prepared = prepare_pt2e(torch.export.export(model, (images,)).module(), XNNPACKQuantizer())``;
    run it on some batches; ``convert_pt2e(prepared)``; ``to_edge_transform_and_lower(…)``
    """
    # Step 1: export the graph. The runtime plans its memory for the largest batch: the loader's.
    example = inputs_of(next(iter(train)))
    shapes = ({0: torch.export.Dim("batch", max=len(example))},)
    graph = torch.export.export(model, (example,), dynamic_shapes=shapes).module()
    # Step 2: insert observers, calibrate and convert.
    quantized = quantize_for_xnnpack(graph, itertools.islice(train, CALIBRATION_BATCHES))
    # Step 3: lower the quantized graph to XNNPACK's kernels.
    exported = torch.export.export(quantized, (example,), dynamic_shapes=shapes)
    return Program(lower_to_xnnpack(exported).buffer).eval()


def torchao(model: nn.Module, train: DataLoader, config: str, **options: object) -> nn.Module:
    """Replace the weights of Linear layers by quantized tensors; the rest stays float.

    ``quantize_(copy.deepcopy(model), Int8WeightOnlyConfig())``, or another of torchao's configs

    Raises
    ------
    ValueError
        If a layer would stay float: torchao skips those that do not fit.
    """
    import torchao.quantization as ao

    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise ValueError("there is nothing to quantize: torchao takes Linear layers only")
    quantized = copy.deepcopy(model)
    ao.quantize_(quantized, getattr(ao, config)(**options))
    for name in linear:
        layer = quantized.get_submodule(name)
        if not type(layer.weight).__module__.startswith("torchao."):
            raise ValueError(f"{name} stayed float: {config} does not take {layer}")
    return quantized


def _with(function: Callable[..., nn.Module], **options: object) -> Scheme:
    """Set a function's options, and name them in its docstring."""
    scheme = partial(function, **options)
    words = ", ".join(f"{name}={value!r}" for name, value in options.items())
    scheme.__doc__ = f"{inspect.getdoc(function)}\n\nHere: {words}."
    return scheme


ALL: dict[str, Scheme] = {
    "fp32": fp32,
    "bf16": _with(cast, dtype=torch.bfloat16),
    "fp16": _with(cast, dtype=torch.float16),
    "int8_dynamic": int8_dynamic,
    "int8_tensor_eager": _with(static_eager, per_channel=False),
    "int8_channel_eager": _with(static_eager, per_channel=True),
    "int8_tensor_fx": _with(static_fx, per_channel=False),
    "int8_channel_fx": _with(static_fx, per_channel=True),
    "int8_pt2e": pt2e,
    "int8_dynamic_torchao": _with(torchao, config="Int8DynamicActivationInt8WeightConfig"),
    "int8_weights_torchao": _with(torchao, config="Int8WeightOnlyConfig"),
    "int4_weights_torchao": _with(torchao, config="Int4WeightOnlyConfig", group_size=32),
    "int4_weights_packed": int4_packed,
    "gptq": _with(int4_calibrated, method="gptq"),
    "awq": _with(int4_calibrated, method="awq"),
    "int8_qat": _with(qat, bits=8),
    "int4_qat": _with(qat, bits=4),
}
