"""Quantization schemes by name: the registry that ``qlearn.sweep`` runs through.

A scheme is a function of a float model in eval mode and of a training loader. It returns another
model, which takes and gives float32, and does not change the first. It raises an exception when
the model, or this machine, does not allow it. Each docstring shows the calls that matter; where a
function makes several schemes, the last line names the options.
"""

import copy
import functools
import inspect
import itertools
from collections.abc import Callable, Iterable

import torch
import torch.ao.quantization as tq
from torch import Tensor, nn
from torch.ao.quantization.quantize_fx import prepare_qat_fx
from torch.utils.data import DataLoader

from qlearn.calibration import inputs_of
from qlearn.data.batches import SIZE, as_loader
from qlearn.quantization import eager, fx
from qlearn.quantization.eager import CALIBRATION_BATCHES
from qlearn.quantization.equalization import require_right_fold
from qlearn.quantization.groups import replace_layers
from qlearn.quantization.pt2e import (
    Program,
    lower_to_xnnpack,
    quantize_for_xnnpack,
    require_agreement,
)
from qlearn.quantization.qconfigs import fake_quantizer, weight_qconfig
from qlearn.quantization.tracing import copy_to_trace, require_own_weights
from qlearn.quantization.weight_only import int4_calibrated, int4_packed
from qlearn.system.errors import explained
from qlearn.training import fit, require_float32, require_logits, require_numbers

Scheme = Callable[[nn.Module, DataLoader], nn.Module]

QAT_EPOCHS = 2
# Of QAT, by bits: at 8 a good model needs little, and a usual rate would do it harm.
LEARNING_RATES = {8: 1e-4, 4: 1e-3, 3: 1e-3}


def _explaining(function: Scheme) -> Scheme:
    """Have a scheme say why it does not take a model, or why what it made does not run."""

    @functools.wraps(function)
    def scheme(model: nn.Module, train: Iterable | None, *arguments: object, **options: object):
        require_float32(model)
        if isinstance(model, torch.jit.ScriptModule):
            raise ValueError("it is TorchScript already: give the nn.Module that it was made from.")
        if train is None:  # of weights alone: there is nothing to run the model on
            with explained("this scheme does not take the model"):
                return function(model, train, *arguments, **options)
        train = as_loader(train, shuffle=True)
        batch = next(iter(train), None)
        if batch is None:
            raise ValueError("the training loader holds no batches; give it a set with samples.")
        inputs = inputs_of(batch)
        with explained("the model fails"), torch.no_grad():
            outputs = model(inputs)
        if not isinstance(outputs, Tensor):
            require_logits(outputs)
        require_numbers(outputs)
        with explained("this scheme does not take the model"):
            made = function(model, train, *arguments, **options)
        fx.require_hooks(model, made.model if isinstance(made, Cast) else made)
        with explained("the model that was made fails"), torch.no_grad():
            require_numbers(made(inputs))
        return made

    return scheme


@_explaining
def fp32(model: nn.Module, train: DataLoader) -> nn.Module:
    """Return the float model itself, which the others are compared with."""
    return model


class Cast(nn.Module):
    """A copy of a model in another float type, which takes and gives float32."""

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        # Complex numbers stay: to(dtype) would drop their imaginary parts.
        cast = functools.partial(_cast_floats, dtype=dtype)
        self.model = copy.deepcopy(model)._apply(cast)
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        """Return the model's float32 outputs; integer inputs (ids) are not cast."""
        x = x.to(self.dtype) if x.is_floating_point() else x
        return self.model(x).float()


def _cast_floats(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


@_explaining
def cast(model: nn.Module, train: DataLoader, dtype: torch.dtype) -> nn.Module:
    """Hold weights and compute in 16-bit floats.

    ``copy.deepcopy(model).to(dtype)``, its inputs cast to ``dtype`` and its outputs to float32
    """
    return Cast(model, dtype).eval()


@_explaining
def int8_dynamic(model: nn.Module, train: DataLoader) -> nn.Module:
    """Hold int8 weights; find the activations' ranges at every call. The rest stays float.

    ``quantize_dynamic(model, {nn.Linear, nn.LSTM, nn.GRU}, dtype=torch.qint8)``
    """
    kinds = {nn.Linear, nn.LSTM, nn.GRU}
    names = [name for name, module in model.named_modules() if name and type(module) in kinds]
    if not names:
        raise ValueError(
            "there is nothing to quantize: no Linear, LSTM or GRU layer inside the model (one that "
            "is itself such a layer has to be put into a Sequential)"
        )
    made = tq.quantize_dynamic(model, kinds, dtype=torch.qint8)
    # It quantizes a layer at its first place only; elsewhere the model holds the float one.
    return replace_layers(copy.deepcopy(model), {n: made.get_submodule(n) for n in names})


static_eager = _explaining(eager.static_eager)


@_explaining
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
    least = fx.AGREEMENT_DB if bits == 8 else None
    return fx.quantize_fx(model, fx.fx_mapping(qconfig), example, batches, least)


@_explaining
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
    require_own_weights(model)
    require_right_fold(model, example)
    training = copy_to_trace(model).train()
    prepared = prepare_qat_fx(training, fx.fx_mapping(qconfig), (example,))
    # Step 2: fine-tune, the last epoch with ranges and batch-norm statistics frozen.
    freeze = functools.partial(_freeze, last=epochs)
    fit(prepared, train, epochs=epochs, learning_rate=LEARNING_RATES[bits], on_epoch=freeze)
    # Step 3: convert the fake quantizers to int8 layers.
    if bits < 8:
        return fx.convert_clipped(prepared)
    # Training moves values out of the ranges, and then sums saturate on some processors.
    return fx.convert_checked(prepared, example, least=0)


def _freeze(model: nn.Module, epoch: int, last: int) -> None:
    if epoch == last > 1:  # a first epoch needs its observers
        model.apply(tq.disable_observer)
        model.apply(torch.ao.nn.intrinsic.qat.freeze_bn_stats)


@_explaining
def pt2e(model: nn.Module, train: DataLoader) -> nn.Module:
    """Compute in int8 in ExecuTorch's XNNPACK, from a graph of ``torch.export`` (PT2E).

    ``prepared = prepare_pt2e(torch.export.export(model, (images,)).module(), XNNPACKQuantizer())``;
    run it on some batches; ``convert_pt2e(prepared)``; ``to_edge_transform_and_lower(…)``
    """
    # Step 1: export the graph. The runtime plans its memory for the largest batch.
    example = inputs_of(next(iter(train)))
    shapes = ({0: torch.export.Dim("batch", max=max(SIZE, len(example)))},)
    graph = torch.export.export(model, (example,), dynamic_shapes=shapes).module()
    # Step 2: insert observers, calibrate and convert.
    quantized = quantize_for_xnnpack(graph, itertools.islice(train, CALIBRATION_BATCHES))
    # Step 3: lower the quantized graph to XNNPACK's kernels.
    exported = torch.export.export(quantized, (example,), dynamic_shapes=shapes)
    program = Program(lower_to_xnnpack(exported).buffer).eval()
    require_agreement(quantized, program, [example])
    return program


@_explaining
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
            raise ValueError(
                f"{name or 'the model'} stayed float: {config} does not take "
                f"{type(layer).__name__} weights of shape {tuple(layer.weight.shape)}"
            )
    return quantized


def _with(function: Callable[..., nn.Module], **options: object) -> Scheme:
    """Set a function's options, and name them in its docstring."""
    scheme = functools.partial(function, **options)
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
    "int4_weights_packed": _explaining(int4_packed),
    "gptq": _with(_explaining(int4_calibrated), method="gptq"),
    "awq": _with(_explaining(int4_calibrated), method="awq"),
    "int8_qat": _with(qat, bits=8),
    "int4_qat": _with(qat, bits=4),
}
