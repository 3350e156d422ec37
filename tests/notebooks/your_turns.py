"""What learners write in the lessons' cells: turn → right ways, and wrong ways with what they get.

A turn is the id of the learner's cell without "-code".
"""

RIGHT = {
    "l01-turn-1": [
        """
def my_parameters(low, high, quant_min, quant_max):
    low, high = min(low.item(), 0.0), max(high.item(), 0.0)
    scale = (high - low) / (quant_max - quant_min)
    return scale, quant_min - round(low / scale)
""",
        """
def my_parameters(low, high, quant_min, quant_max):
    low, high = low.clamp(max=0), high.clamp(min=0)
    scale = (high - low) / (quant_max - quant_min)
    return scale, (quant_min - torch.round(low / scale)).clamp(quant_min, quant_max)
""",
    ],
    "l01-turn-2": [
        """
def my_matmul(a, zero_a, b, zero_b):
    a, b = a.int(), b.int()
    sums = a @ b - zero_a * b.sum(0) - zero_b * a.sum(1)[:, None]
    return sums + a.shape[1] * zero_a * zero_b
""",
        """
def my_matmul(a, zero_a, b, zero_b):
    return (a.float() - zero_a) @ (b.float() - zero_b)
""",
    ],
    "l01-turn-3": [
        """
def my_requantize(accumulator, multiplier, zero_point):
    return quantize(accumulator.float(), 1 / multiplier, zero_point, 0, 255)
""",
        """
def my_requantize(accumulator, multiplier, zero_point):
    m = round(multiplier * 2**31)
    return (((accumulator.long() * m + 2**30) >> 31) + zero_point).clamp(0, 255)
""",
    ],
    "l02-turn-1": [
        """
def my_bytes(widths):
    return sum(a * b + 4 * b for a, b in pairwise(widths))
"""
    ],
    "l02-turn-2": [
        """
def my_product(integers, scale, zero_point, weight, weight_scale, bias):
    sums = (integers.int() - zero_point) @ weight.int().T
    return sums * (scale * weight_scale) + bias
"""
    ],
    "l03-turn-1": [
        """
my_fusion = [[f"model.{kind}{i}" for kind in ("conv", "bn", "relu")] for i in (1, 2)]
"""
    ],
    "l03-turn-2": [
        """
def my_calibration(prepared, batches):
    with torch.inference_mode():
        for batch in batches:
            prepared(batch)
""",
        """
def my_calibration(prepared, batches):
    prepared(torch.cat(list(batches)))
""",
    ],
    "l03-turn-3": [
        """
def my_forward(self, x):
    return self.fc(self.dequant(self.features(self.quant(x))).flatten(1))
""",
        """
def my_forward(self, x):
    x = self.features(self.quant(x)).flatten(1)
    return self.fc(self.dequant(x))
""",
    ],
    "l04-turn-1": [
        """
def my_fake_quantize(x, scale, zero_point, low, high):
    q = torch.round(x / scale) + zero_point
    inside = (low <= q) & (q <= high)
    y = (q.clamp(low, high) - zero_point) * scale
    return torch.where(inside, x + (y - x).detach(), y.detach())
""",
    ],
    "l04-turn-2": [
        """
def my_on_epoch(model, epoch):
    if epoch >= 2:
        model.apply(nn.intrinsic.qat.freeze_bn_stats)
    if epoch >= 4:
        model.apply(tq.disable_observer)
""",
        """
def my_on_epoch(model, epoch):
    steps = {2: nn.intrinsic.qat.freeze_bn_stats, 4: tq.disable_observer}
    model.apply(steps.get(epoch, lambda module: None))
""",
    ],
    "l05-turn-1": [
        """
def my_skeleton():
    return tq.quantize_dynamic(qlearn.models.MLP().eval(), {nn.Linear})
"""
    ],
    "l05-turn-2": [
        """
def my_uncalibrated(model):
    return [name for name, module in model.named_modules() if getattr(module, "scale", 0) == 1]
""",
    ],
    "l06-turn-1": [
        """
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower
def my_file(model, example):
    program = torch.export.export(model, (example,))
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    return lowered.to_executorch().buffer
""",
    ],
    "l06-turn-2": [
        """
def my_input(pixels):
    return 1 - pixels.view(1, 1, *pixels.shape) / 255
""",
        """
def my_input(pixels):
    return (255 - pixels)[None, None] / 255
""",
    ],
    "l07-turn-1": [
        """
def my_scheme(model, train):
    made = copy.deepcopy(model)
    for parameter in made.parameters():
        parameter.data = parameter.data.bfloat16().float()
    return made
""",
        "def my_scheme(model, train):\n    return copy.deepcopy(model).bfloat16().float()",
    ],
    "l07-turn-2": [
        "def my_dominates(a, b):\n    return a[0] >= b[0] and a[1] <= b[1] and a != b",
        """
def my_dominates(a, b):
    return (a[0] > b[0] and a[1] <= b[1]) or (a[0] >= b[0] and a[1] < b[1])
""",
    ],
    "l08-turn-1": [
        """
def my_round(weight, bits):
    highest = 2 ** (bits - 1) - 1
    scale = weight.abs().max() / highest
    return (weight / scale).round() * scale
""",
        """
def my_round(weight, bits):
    scale = weight.abs().max().item() / (2 ** (bits - 1) - 1)
    return torch.round(weight / scale).clamp(1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1) * scale
""",
    ],
    "l08-turn-2": [
        """
def my_mix(alone, count, narrow, wide):
    first = alone.sort_values().index[:count]
    return {name: wide if name in first else narrow for name in alone.index}
""",
        """
def my_mix(alone, count, narrow, wide):
    return dict.fromkeys(alone.index, narrow) | dict.fromkeys(alone.nsmallest(count).index, wide)
""",
    ],
    "l08-turn-3": [
        "def my_scale(r1, r2):\n    return torch.sqrt(r1 / r2)",
        "def my_scale(r1, r2):\n    return r1 / (r1 * r2) ** 0.5",
    ],
    "l09-turn-1": [
        """
def my_filter(module, name):
    return isinstance(module, nn.Linear) and module.in_features >= 128 and name != "fc3"
""",
        """
def my_filter(module, name):
    if name == "fc3" or not isinstance(module, nn.Linear):
        return False
    return module.weight.shape[1] > 127
""",
    ],
    "l09-turn-2": [
        """
def my_migration(model):
    result = copy.deepcopy(model)
    quantize_(result, ao.Int8DynamicActivationInt8WeightConfig())
    return result
""",
    ],
    "l10-turn-1": [
        """
def spread(weight, error, U, j):
    weight[:, j + 1 :] -= error * U[j, j + 1 :]
"""
    ],
    "l10-turn-2": ["my_bound = bandwidth * 1e9 / (weights * bytes_a_weight)"],
}

WRONG = {
    "l01-turn-1": [
        (  # zero is not made a part of the range
            """
def my_parameters(low, high, quant_min, quant_max):
    scale = (high - low) / (quant_max - quant_min)
    return scale, quant_min - torch.round(low / scale)
""",
            "with low = ",
        ),
        (  # levels for steps
            """
def my_parameters(low, high, quant_min, quant_max):
    low, high = low.clamp(max=0), high.clamp(min=0)
    scale = (high - low) / (quant_max - quant_min + 1)
    return scale, quant_min - torch.round(low / scale)
""",
            "value 1 of it is",
        ),
        (  # the sign of the zero point
            """
def my_parameters(low, high, quant_min, quant_max):
    low, high = low.clamp(max=0), high.clamp(min=0)
    scale = (high - low) / (quant_max - quant_min)
    return scale, quant_min + torch.round(low / scale)
""",
            "value 2 of it is -",
        ),
        (  # not an integer
            """
def my_parameters(low, high, quant_min, quant_max):
    low, high = low.clamp(max=0), high.clamp(min=0)
    scale = (high - low) / (quant_max - quant_min)
    return scale, quant_min - low / scale
""",
            "value 2 of it is",
        ),
        (  # cut off, not rounded
            """
def my_parameters(low, high, quant_min, quant_max):
    low, high = low.clamp(max=0), high.clamp(min=0)
    scale = (high - low) / (quant_max - quant_min)
    return scale, quant_min - int(low / scale)
""",
            "value 2 of it is",
        ),
        (  # the scale alone
            """
def my_parameters(low, high, quant_min, quant_max):
    return (high.clamp(min=0) - low.clamp(max=0)) / (quant_max - quant_min)
""",
            "returns 1 values instead of 2",
        ),
        (  # Python's min of a tensor and a number, swapped
            """
def my_parameters(low, high, quant_min, quant_max):
    low, high = max(low, 0), min(high, 0)
    scale = (high - low) / (quant_max - quant_min)
    return scale, quant_min - round(low / scale)
""",
            "with low = ",
        ),
    ],
    "l01-turn-2": [
        (  # the types of the inputs are the type of the sum
            """
def my_matmul(a, zero_a, b, zero_b):
    return a @ b - zero_a * b.sum(0) - zero_b * a.sum(1)[:, None] + len(b) * zero_a * zero_b
""",
            "stops with RuntimeError",
        ),
        (  # wraps around
            """
def my_matmul(a, zero_a, b, zero_b):
    return (a.to(torch.int8) - zero_a) @ (b - zero_b)
""",
            "instead of",
        ),
        (  # no constant
            """
def my_matmul(a, zero_a, b, zero_b):
    a, b = a.int(), b.int()
    return a @ b - zero_a * b.sum(0) - zero_b * a.sum(1)[:, None]
""",
            "instead of",
        ),
        (  # M for K
            """
def my_matmul(a, zero_a, b, zero_b):
    a, b = a.int(), b.int()
    sums = a @ b - zero_a * b.sum(0) - zero_b * a.sum(1)[:, None]
    return sums + a.shape[0] * zero_a * zero_b
""",
            "instead of",
        ),
        (  # a row where a column belongs
            """
def my_matmul(a, zero_a, b, zero_b):
    a, b = a.int(), b.int()
    return a @ b - zero_a * b.sum(0) - zero_b * a.sum(1) + a.shape[1] * zero_a * zero_b
""",
            "stops with RuntimeError",
        ),
        (  # the zero points exchanged
            """
def my_matmul(a, zero_a, b, zero_b):
    return (a.int() - zero_b) @ (b.int() - zero_a)
""",
            "instead of",
        ),
    ],
    "l01-turn-3": [
        (  # cut off, not rounded
            """
def my_requantize(accumulator, multiplier, zero_point):
    return ((accumulator * multiplier).int() + zero_point).clamp(0, 255)
""",
            "instead of",
        ),
        (  # not clamped
            """
def my_requantize(accumulator, multiplier, zero_point):
    return torch.round(accumulator * multiplier) + zero_point
""",
            "instead of",
        ),
        (  # clamped before the zero point is added
            """
def my_requantize(accumulator, multiplier, zero_point):
    return torch.round(accumulator * multiplier).clamp(0, 255) + zero_point
""",
            "instead of",
        ),
        (  # cast to 8 bits, which wraps around
            """
def my_requantize(accumulator, multiplier, zero_point):
    return (torch.round(accumulator * multiplier) + zero_point).long().to(torch.uint8)
""",
            "instead of",
        ),
        (  # the zero point scaled as well
            """
def my_requantize(accumulator, multiplier, zero_point):
    return torch.round((accumulator + zero_point) * multiplier).clamp(0, 255)
""",
            "instead of",
        ),
        (  # divided by the multiplier
            """
def my_requantize(accumulator, multiplier, zero_point):
    return quantize(accumulator, multiplier, zero_point, 0, 255)
""",
            "instead of",
        ),
    ],
    "l02-turn-1": [
        (
            "def my_bytes(widths):\n    return sum(a * b + b for a, b in pairwise(widths))",
            "is",
        ),
        ("def my_bytes(widths):\n    return sum(a * b for a, b in pairwise(widths))", "is"),
        (
            "def my_bytes(widths):\n    return sum(4 * (a * b + b) for a, b in pairwise(widths))",
            "is",
        ),
        (
            "def my_bytes(widths):\n    return sum(a * b + 4 * a for a, b in pairwise(widths))",
            "is",
        ),
        (
            "def my_bytes(widths):\n    return widths[0] * widths[1] + widths[1] * widths[2]",
            "stops",
        ),
    ],
    "l02-turn-2": [
        (  # unsigned integers wrap around
            """
def my_product(integers, scale, zero_point, weight, weight_scale, bias):
    sums = (integers - zero_point).int() @ weight.int().T
    return sums * (scale * weight_scale) + bias
""",
            "instead of",
        ),
        (  # no zero point
            """
def my_product(integers, scale, zero_point, weight, weight_scale, bias):
    return integers.int() @ weight.int().T * (scale * weight_scale) + bias
""",
            "instead of",
        ),
        (  # one scale only
            """
def my_product(integers, scale, zero_point, weight, weight_scale, bias):
    return (integers.int() - zero_point) @ weight.int().T * scale + bias
""",
            "instead of",
        ),
        (  # the bias scaled too
            """
def my_product(integers, scale, zero_point, weight, weight_scale, bias):
    return ((integers.int() - zero_point) @ weight.int().T + bias) * (scale * weight_scale)
""",
            "instead of",
        ),
        (  # not transposed
            """
def my_product(integers, scale, zero_point, weight, weight_scale, bias):
    return (integers.int() - zero_point) @ weight.int() * (scale * weight_scale) + bias
""",
            "stops with RuntimeError",
        ),
        (  # int8 products stay int8
            """
def my_product(integers, scale, zero_point, weight, weight_scale, bias):
    return (integers.to(torch.int8) - zero_point) @ weight.T * (scale * weight_scale) + bias
""",
            "instead of",
        ),
    ],
    "l03-turn-1": [
        ('my_fusion = ["model.conv1", "model.bn1", "model.relu1"]', "bn2, relu2 still stand alone"),
        (
            'my_fusion = [[f"model.{k}{i}" for k in ("conv", "bn")] for i in (1, 2)]',
            "relu1, relu2 still stand alone",
        ),
        (
            'my_fusion = [[f"model.{k}{i}" for k in ("conv", "relu", "bn")] for i in (1, 2)]',
            "did not find fuser method",
        ),
        (
            'my_fusion = [[f"{k}{i}" for k in ("conv", "bn", "relu")] for i in (1, 2)]',
            "stops with AttributeError",
        ),
        ('my_fusion = [["model.conv1", "model.bn2", "model.relu1"]]', "stops with RuntimeError"),
        ("my_fusion = []", "did not find fuser method"),
    ],
    "l03-turn-2": [
        (  # the first batch only
            "def my_calibration(prepared, batches):\n    prepared(batches[0])",
            "has seen",
        ),
        (  # the last batch only
            "def my_calibration(prepared, batches):\n    prepared(batches[-1])",
            "has seen",
        ),
        (  # another model
            """
def my_calibration(prepared, batches):
    for batch in batches:
        fused(batch)
""",
            "has seen",
        ),
        (  # a copy
            """
def my_calibration(prepared, batches):
    prepared = copy.deepcopy(prepared)
    for batch in batches:
        prepared(batch)
""",
            "has seen",
        ),
        (  # pairs, as a loader gives them
            """
def my_calibration(prepared, batches):
    for images, labels in batches:
        prepared(images)
""",
            "stops with ValueError",
        ),
        (  # scaled to what the float model was trained on, and production is not
            """
def my_calibration(prepared, batches):
    for batch in batches:
        prepared(batch / batch.max())
""",
            "has seen",
        ),
        (  # converted, which calibrates nobody
            "def my_calibration(prepared, batches):\n    tq.convert(prepared)(batches[0])",
            "has seen",
        ),
    ],
    "l03-turn-3": [
        (  # no stubs
            "def my_forward(self, x):\n    return self.fc(self.features(x).flatten(1))",
            "stops with NotImplementedError: Could not run 'quantized::conv2d_relu",
        ),
        (  # nobody returns to float
            "def my_forward(self, x):\n    return self.fc(self.features(self.quant(x)).flatten(1))",
            "stops with",
        ),
        (  # behind the float layer
            """
def my_forward(self, x):
    return self.dequant(self.fc(self.features(self.quant(x)).flatten(1)))
""",
            "stops with",
        ),
        (  # exchanged
            "def my_forward(self, x):\n"
            "    return self.fc(self.quant(self.features(self.dequant(x))).flatten(1))",
            "stops with",
        ),
        (  # quantized and given back before the layers
            """
def my_forward(self, x):
    return self.fc(self.features(self.dequant(self.quant(x))).flatten(1))
""",
            "stops with NotImplementedError",
        ),
        (  # not flattened
            "def my_forward(self, x):\n"
            "    return self.fc(self.dequant(self.features(self.quant(x))))",
            "stops with ValueError: the prepared model fails",
        ),
        (  # the classifier forgotten
            """
def my_forward(self, x):
    return self.dequant(self.features(self.quant(x))).flatten(1)
""",
            "stops with",
        ),
    ],
    "l04-turn-1": [
        (  # not detached: the true derivative
            """
def my_fake_quantize(x, scale, zero_point, low, high):
    q = (torch.round(x / scale) + zero_point).clamp(low, high)
    return (q - zero_point) * scale
""",
            "value 2 of it is 0",
        ),
        (  # straight through everywhere
            """
def my_fake_quantize(x, scale, zero_point, low, high):
    q = (torch.round(x / scale) + zero_point).clamp(low, high)
    return x + ((q - zero_point) * scale - x).detach()
""",
            "value 2 of it is 1",
        ),
        (  # no gradient at all
            """
def my_fake_quantize(x, scale, zero_point, low, high):
    q = (torch.round(x / scale) + zero_point).clamp(low, high)
    return ((q - zero_point) * scale).detach()
""",
            "stops with RuntimeError",
        ),
        (  # clamped before the zero point
            """
def my_fake_quantize(x, scale, zero_point, low, high):
    q = torch.round(x / scale).clamp(low, high) + zero_point
    y = (q - zero_point) * scale
    return y.detach() + (x - x.detach()) * ((q >= low) & (q <= high))
""",
            "value 1 of it is",
        ),
        (  # integers, not floats on the grid
            """
def my_fake_quantize(x, scale, zero_point, low, high):
    q = torch.round(x / scale) + zero_point
    inside = (q >= low) & (q <= high)
    return q.clamp(low, high).detach() + (x - x.detach()) * inside
""",
            "value 1 of it is",
        ),
        (  # the range of the levels, without their half steps
            """
def my_fake_quantize(x, scale, zero_point, low, high):
    q = (torch.round(x / scale) + zero_point).clamp(low, high)
    inside = (x >= (low - zero_point) * scale) & (x <= (high - zero_point) * scale)
    return ((q - zero_point) * scale).detach() + (x - x.detach()) * inside
""",
            "value 2 of it is",
        ),
    ],
    "l04-turn-2": [
        ("def my_on_epoch(model, epoch):\n    model.eval()", "in epoch 1 the mean stands"),
        (  # from the beginning
            """
def my_on_epoch(model, epoch):
    model.apply(nn.intrinsic.qat.freeze_bn_stats)
""",
            "in epoch 1 the mean stands",
        ),
        (  # after epoch 2
            """
def my_on_epoch(model, epoch):
    if epoch > 2:
        model.apply(nn.intrinsic.qat.freeze_bn_stats)
""",
            "in epoch 2 the mean moves",
        ),
        (  # exchanged
            """
def my_on_epoch(model, epoch):
    if epoch == 2:
        model.apply(tq.disable_observer)
    if epoch == 4:
        model.apply(nn.intrinsic.qat.freeze_bn_stats)
""",
            "in epoch 2 the mean moves",
        ),
        (  # the other switch: rounding is off, observers go on
            """
def my_on_epoch(model, epoch):
    if epoch == 2:
        model.apply(nn.intrinsic.qat.freeze_bn_stats)
    if epoch == 4:
        model.apply(tq.disable_fake_quant)
""",
            "in epoch 4 the observer moves",
        ),
        (  # both
            """
def my_on_epoch(model, epoch):
    if epoch == 2:
        model.apply(nn.intrinsic.qat.freeze_bn_stats)
    if epoch == 4:
        model.apply(tq.disable_observer).apply(tq.disable_fake_quant)
""",
            "the weights are no longer rounded",
        ),
        (  # called on the model, not applied to its modules
            """
def my_on_epoch(model, epoch):
    if epoch == 2:
        nn.intrinsic.qat.freeze_bn_stats(model)
""",
            "in epoch 2 the mean moves",
        ),
        (  # fit() calls train() before every epoch
            """
def my_on_epoch(model, epoch):
    if epoch == 2:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
    if epoch == 4:
        model.apply(tq.disable_observer)
""",
            "in epoch 3 the mean moves",
        ),
    ],
    "l05-turn-1": [
        ("def my_skeleton():\n    return qlearn.models.MLP().eval()", "stops with RuntimeError"),
        ("def my_skeleton():\n    return static_skeleton()", "stops with"),
        ("my_skeleton = qlearn.models.MLP", "stops with"),
        (  # one layer of three
            "def my_skeleton():\n"
            "    return tq.quantize_dynamic(qlearn.models.MLP().eval(), {'fc1'})",
            "stops with RuntimeError",
        ),
        (  # no load, no error
            """
class Deaf(nn.Module):
    def load_state_dict(self, state):
        pass
    def forward(self, x):
        return torch.zeros(len(x), 10)
def my_skeleton():
    return Deaf()
""",
            "gives other outputs",
        ),
    ],
    "l05-turn-2": [
        (  # not every module has one
            """
def my_uncalibrated(model):
    return [name for name, module in model.named_modules() if module.scale == 1]
""",
            "stops with AttributeError",
        ),
        (  # layers only: the entrance has a scale too
            """
def my_uncalibrated(model):
    return [n for n, m in model.named_modules() if getattr(m, "scale", 0) == 1 and n != "quant"]
""",
            "were not calibrated it finds",
        ),
        (  # only the model itself
            "def my_uncalibrated(model):\n    return [n for n, m in model.named_children()"
            " if getattr(m, 'scale', 0) == 1]",
            "were not calibrated it finds",
        ),
        (  # the modules, not their names
            "def my_uncalibrated(model):\n    return [m for m in model.modules()"
            " if getattr(m, 'scale', 0) == 1]",
            "stops with TypeError",
        ),
        (  # everything that has a scale
            "def my_uncalibrated(model):\n    return [n for n, m in model.named_modules()"
            " if hasattr(m, 'scale')]",
            "were not calibrated it finds",
        ),
        (  # yes or no
            "def my_uncalibrated(model):\n"
            "    return any(getattr(m, 'scale', 0) == 1 for m in model.modules())",
            "stops with TypeError",
        ),
    ],
    "l06-turn-1": [
        (  # nothing lowered
            """
from executorch.exir import to_edge_transform_and_lower
def my_file(model, example):
    program = torch.export.export(model, (example,))
    return to_edge_transform_and_lower(program).to_executorch().buffer
""",
            "to the portable kernels",
        ),
        (  # the lesson's model, not the one that was given
            """
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower
def my_file(model, example):
    lowered = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
    return lowered.to_executorch().buffer
""",
            "stops with",
        ),
        (  # an exported program is not a file
            "def my_file(model, example):\n    return torch.export.export(model, (example,))",
            "stops with TypeError",
        ),
        (  # inputs are a tuple
            "def my_file(model, example):\n    return torch.export.export(model, example)",
            "stops with",
        ),
        (  # TorchScript
            """
import io
def my_file(model, example):
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(model, example), buffer)
    return buffer.getvalue()
""",
            "stops with",
        ),
    ],
    "l06-turn-2": [
        ("def my_input(pixels):\n    return pixels[None, None] / 255", "instead of"),
        ("def my_input(pixels):\n    return 1 - pixels / 255", "shape (2, 2) instead of"),
        ("def my_input(pixels):\n    return (1 - pixels)[None, None] / 255", "instead of"),
        ("def my_input(pixels):\n    return 255.0 - pixels[None, None]", "instead of"),
        ("def my_input(pixels):\n    return 1 - pixels[None, None] / 256", "instead of"),
        ("def my_input(pixels):\n    return (1 - pixels / 255).mT[None, None]", "instead of"),
        ("def my_input(pixels):\n    return 1 - pixels[None, None] // 255", "instead of"),
    ],
    "l07-turn-1": [
        (  # in place
            """
def my_scheme(model, train):
    for parameter in model.parameters():
        parameter.data = parameter.data.bfloat16().float()
    return model
""",
            "begin with copy.deepcopy",
        ),
        ("def my_scheme(model, train):\n    return copy.deepcopy(model)", "becomes"),
        ("def my_scheme(model, train):\n    return copy.deepcopy(model).half().float()", "becomes"),
        ("def my_scheme(model, train):\n    return copy.deepcopy(model).bfloat16()", ".float()"),
    ],
    "l07-turn-2": [
        (
            "def my_dominates(a, b):\n    return a[0] >= b[0] and a[1] <= b[1]",
            "1 instead of 0",
        ),
        ("def my_dominates(a, b):\n    return a[0] > b[0] and a[1] < b[1]", "0 instead of 1"),
        ("def my_dominates(a, b):\n    return a[0] >= b[0] and a[1] >= b[1]", "instead of"),
        ("def my_dominates(a, b):\n    return a > b", "instead of"),
    ],
    "l08-turn-1": [
        (  # the grid of two's complement
            """
def my_round(weight, bits):
    scale = weight.abs().max() / 2 ** (bits - 1)
    return (weight / scale).round() * scale
""",
            "instead of",
        ),
        (  # an affine one
            """
def my_round(weight, bits):
    scale = (weight.max() - weight.min()) / (2**bits - 1)
    return (weight / scale).round() * scale
""",
            "instead of",
        ),
        (  # the integers
            """
def my_round(weight, bits):
    scale = weight.abs().max() / (2 ** (bits - 1) - 1)
    return (weight / scale).round()
""",
            "instead of",
        ),
    ],
    "l08-turn-2": [
        (  # the least sensitive ones
            """
def my_mix(alone, count, narrow, wide):
    return dict.fromkeys(alone.index, narrow) | dict.fromkeys(alone.nlargest(count).index, wide)
""",
            "instead of",
        ),
        (  # in the order of the layers
            """
def my_mix(alone, count, narrow, wide):
    return {name: wide if i < count else narrow for i, name in enumerate(alone.index)}
""",
            "instead of",
        ),
        (  # the wide ones only
            """
def my_mix(alone, count, narrow, wide):
    return dict.fromkeys(alone.nsmallest(count).index, wide)
""",
            "instead of",
        ),
    ],
    "l08-turn-3": [
        ("def my_scale(r1, r2):\n    return r1 / r2", "become"),
        ("def my_scale(r1, r2):\n    return torch.sqrt(r2 / r1)", "become"),
        ("def my_scale(r1, r2):\n    return torch.sqrt(r1 * r2)", "become"),
    ],
    "l09-turn-1": [
        (  # any name
            "def my_filter(module, name):\n"
            "    return isinstance(module, nn.Linear) and module.in_features >= 128",
            "called 'fc3' is to be left",
        ),
        (  # outputs instead of inputs
            "def my_filter(module, name):\n"
            "    return isinstance(module, nn.Linear) and module.out_features >= 128",
            "in_features=128, out_features=10, bias=True) called 'fc1' is to be taken",
        ),
        (  # what is no Linear
            "def my_filter(module, name):\n    return module.in_features >= 128 and name != 'fc3'",
            "'ReLU' object has no attribute 'in_features'",
        ),
        (  # more than 128
            "def my_filter(module, name):\n"
            "    return isinstance(module, nn.Linear) and module.in_features > 128",
            "is to be taken",
        ),
    ],
    "l09-turn-2": [
        (  # in place
            """
def my_migration(model):
    quantize_(model, ao.Int8DynamicActivationInt8WeightConfig())
    return model
""",
            "copy it first",
        ),
        (  # what quantize_ returns
            """
def my_migration(model):
    return quantize_(copy.deepcopy(model), ao.Int8DynamicActivationInt8WeightConfig())
""",
            "it returns None",
        ),
        (  # the activations stay float
            """
def my_migration(model):
    result = copy.deepcopy(model)
    quantize_(result, ao.Int8WeightOnlyConfig())
    return result
""",
            "dB from the dynamic int8 model's outputs",
        ),
        (  # nothing happens
            "def my_migration(model):\n    return copy.deepcopy(model)",
            "dB from the dynamic int8 model's outputs",
        ),
    ],
    "l10-turn-1": [
        (  # the sign
            "def spread(weight, error, U, j):\n    weight[:, j + 1 :] += error * U[j, j + 1 :]",
            "GPTQ",
        ),
        (  # one column only
            """
def spread(weight, error, U, j):
    weight[:, j + 1 : j + 2] -= error * U[j, j + 1 : j + 2]
""",
            "GPTQ",
        ),
        (  # not in place
            "def spread(weight, error, U, j):\n"
            "    weight = weight[:, j + 1 :] - error * U[j, j + 1 :]",
            "GPTQ",
        ),
        (  # the column of U, which is triangular
            "def spread(weight, error, U, j):\n    weight[:, j + 1 :] -= error * U[j + 1 :, j]",
            "GPTQ",
        ),
    ],
    "l10-turn-2": [
        ("my_bound = bandwidth / (weights * bytes_a_weight)", "for fp32 it is 0.0 instead of"),
        ("my_bound = bandwidth * 1e9 / bytes_a_weight", "tokens a second"),
        ("my_bound = bandwidth * 1e9 / weights", "stops with"),
        ("my_bound = weights * bytes_a_weight / (bandwidth * 1e9)", "for fp32"),
    ],
}
