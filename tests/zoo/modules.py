"""Small modules of the kinds that people bring, by name; most of them give N×5 logits."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qlearn.data import DataSet
from qlearn.data.common import Samples

CLASSES = 5
IMAGE, SOUND, ROW, STEPS, VOLUME = (3, 8, 8), (4, 16), (16,), (6, 8), (2, 4, 6, 6)
IDS = "ids"  # six integers below VOCABULARY
VOCABULARY = 20


class Member(NamedTuple):
    """A module of the zoo: what makes it, and the shape of one input."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...] | str
    short: bool  # `make test` runs it too


ZOO: dict[str, Member] = {}


def member(shape: tuple[int, ...] | str, short: bool = False) -> Callable:
    """Put a class or function into the zoo, under its name."""

    def register(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
        ZOO[make.__name__] = Member(make, shape, short)
        return make

    return register


def make(name: str) -> tuple[nn.Module, DataSet]:
    """Return a module in eval mode, its batch norms settled, and data for it."""
    torch.manual_seed(0)
    module, shape = ZOO[name].make(), ZOO[name].shape
    size = (80, *((6,) if shape == IDS else shape))
    inputs = torch.randint(VOCABULARY, size) if shape == IDS else 2 * torch.rand(size) - 1
    labels = torch.arange(len(inputs)) % CLASSES
    kind = next((p.dtype for p in module.parameters()), torch.float32)
    if inputs.is_floating_point() and kind != torch.float32:
        inputs = inputs.to(kind)
    if any("Norm" in type(part).__name__ for part in module.modules()):
        with torch.no_grad():
            for _ in range(20):
                module.train()(inputs)
    parts = Samples(inputs[:64], labels[:64]), Samples(inputs[64:], labels[64:])
    return module.eval(), DataSet(*parts, tuple("abcde"))


def head(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES))


# Convolutions


@member(IMAGE, short=True)
def conv_bn_relu() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), head(8))


@member(IMAGE)
def depthwise() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.ReLU6(), nn.Conv2d(8, 8, 3, groups=8), nn.ReLU6(), head(8)
    )


@member(IMAGE)
def grouped_dilated() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, dilation=2), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2), head(8)
    )


@member(IMAGE, short=True)
def transposed() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 6, 2, 2), head(6))


@member(SOUND)
def transposed_1d() -> nn.Module:
    return nn.Sequential(
        nn.ConvTranspose1d(4, 6, 4, 2), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(),
        nn.Linear(6, CLASSES),
    )  # fmt: skip


@member(SOUND)
def conv1d_bn_relu() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(4, 8, 3), nn.BatchNorm1d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 14, CLASSES)
    )


@member(SOUND)
def conv1d_bn() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(4, 8, 3, stride=2), nn.BatchNorm1d(8), nn.Flatten(), nn.Linear(8 * 7, CLASSES)
    )


@member(VOLUME)
def conv3d() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(2, 6, 3), nn.BatchNorm3d(6), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 32, CLASSES)
    )


@member(IMAGE)
def same_padding() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding="same"), nn.ReLU(), head(8))


@member(IMAGE)
def reflect_padding() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect"), nn.ReLU(), head(8))


@member(IMAGE)
class patches(nn.Module):
    """The stem of a vision transformer."""

    def __init__(self):
        super().__init__()
        self.embed, self.norm = nn.Conv2d(3, 16, 4, 4), nn.LayerNorm(16)
        self.fc = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.norm(self.embed(x).flatten(2).transpose(1, 2)).mean(1))


# Norms in every order


@member(IMAGE)
def bn_relu_conv() -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 8, 3), head(8))


@member(IMAGE)
def conv_relu_bn() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.BatchNorm2d(8), head(8))


@member(ROW, short=True)
def linear_bn_relu() -> nn.Module:
    return nn.Sequential(nn.Linear(16, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, CLASSES))


@member(ROW)
def linear_relu_bn() -> nn.Module:
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.BatchNorm1d(32), nn.Linear(32, CLASSES))


@member(IMAGE)
def group_norm() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), head(8))


@member(IMAGE)
def instance_norm() -> nn.Module:
    norm = nn.InstanceNorm2d(8, affine=True)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), norm, nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), head(8)
    )


@member(ROW)
def layer_norm_gelu() -> nn.Module:
    return nn.Sequential(nn.Linear(16, 32), nn.LayerNorm(32), nn.GELU(), nn.Linear(32, CLASSES))


# Activations


def activated(activation: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), activation, nn.Conv2d(8, 8, 3), activation, head(8))


@member(IMAGE)
def prelu() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.PReLU(8), nn.Conv2d(8, 8, 3), nn.PReLU(), head(8))


@member(IMAGE)
def shared_prelu() -> nn.Module:
    return activated(nn.PReLU(8))


@member(IMAGE)
def silu() -> nn.Module:
    return activated(nn.SiLU())


@member(IMAGE)
def hardswish() -> nn.Module:
    return activated(nn.Hardswish())


@member(IMAGE)
def leaky_relu() -> nn.Module:
    return activated(nn.LeakyReLU(0.1))


@member(ROW)
def dropout() -> nn.Module:
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, CLASSES))


# Branches and shared layers


@member(IMAGE, short=True)
class residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.conv, self.norm = (
            nn.Conv2d(3, 8, 1),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.BatchNorm2d(8),
        )
        self.head = head(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(F.relu(x + self.norm(self.conv(x))))


@member(IMAGE)
class concatenation(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.three, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 3, padding=1), head(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.cat([self.one(x).relu(), self.three(x).relu()], 1))


@member(IMAGE)
class squeeze_excitation(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.gate, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), head(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).relu()
        return self.head(x * self.gate(F.adaptive_avg_pool2d(x, 1)).sigmoid())


@member(ROW, short=True)
class shared_linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(16, 16), nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a((3 * self.a(x)).relu()).relu())


@member(ROW, short=True)
def repeated() -> nn.Module:
    """One layer twice in a list: the ranges of its two outputs are far apart."""
    layers = [nn.Linear(16, 16), nn.ReLU()] * 2
    nn.init.normal_(layers[0].weight, std=0.03)
    return nn.Sequential(*layers, nn.Linear(16, CLASSES))


@member(ROW, short=True)
def hooked() -> nn.Module:
    """A forward hook that changes what a layer returns."""
    model = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, CLASSES))
    model[0].register_forward_hook(lambda module, inputs, outputs: 2 * outputs)
    return model


@member(IMAGE)
def weight_normed() -> nn.Module:
    """A weight that is computed anew in each call."""
    conv = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 3))
    return nn.Sequential(conv, nn.ReLU(), head(8))


@member(ROW, short=True)
class optional_argument(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor, mask=None) -> Tensor:  # noqa: ANN001  as people write it
        return self.fc(x) if mask is None else self.fc(x) * mask


@member(IMAGE)
class shared_conv_bn(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.conv, self.norm, self.head = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), head(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(self.stem(x))).relu()
        return self.head(self.norm(self.conv(x)).relu())


@member(IMAGE)
class shared_conv_two_norms(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 3, 3, padding=1), head(3)
        self.one, self.two = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(self.conv(x)).relu()
        return self.head(self.two(self.conv(x)).relu())


@member(IMAGE)
class pyramid(nn.Module):
    """One convolution on two levels, as detectors have it."""

    def __init__(self):
        super().__init__()
        self.stem, self.conv, self.fc = (
            nn.Conv2d(3, 8, 1),
            nn.Conv2d(8, 8, 3),
            nn.Linear(8, CLASSES),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        levels = [self.conv(x), self.conv(F.max_pool2d(x, 2))]
        return self.fc(sum(level.relu().mean([2, 3]) for level in levels))


@member(ROW, short=True)
class siamese(nn.Module):
    def __init__(self):
        super().__init__()
        self.twin, self.fc = nn.Linear(8, 16), nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.split(8, 1)
        return self.fc(self.twin(left).relu() - self.twin(4 * right).relu())


@member(ROW)
class recursive(nn.Module):
    def __init__(self):
        super().__init__()
        self.step, self.fc = nn.Linear(16, 16), nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = x + self.step(x).tanh()
        return self.fc(x)


@member(ROW, short=True)
class tied_weights(nn.Module):
    def __init__(self):
        super().__init__()
        self.down, self.fc = nn.Linear(16, 8), nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.linear(self.down(x).relu(), self.down.weight.t()))


@member(ROW, short=True)
def root_linear() -> nn.Module:
    return nn.Linear(16, CLASSES)


# Sequences and text


class recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], **options: object):
        super().__init__()
        self.layer = kind(8, 16, batch_first=True, **options)
        self.fc = nn.Linear(32 if self.layer.bidirectional else 16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layer(x)[0][:, -1])


@member(STEPS, short=True)
def gru() -> nn.Module:
    return recurrent(nn.GRU)


@member(STEPS)
def lstm() -> nn.Module:
    return recurrent(nn.LSTM)


@member(STEPS)
def bilstm() -> nn.Module:
    return recurrent(nn.LSTM, bidirectional=True, num_layers=2)


@member(STEPS)
class attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attend, self.fc = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.attend(x, x, x, need_weights=False)[0].mean(1))


@member(STEPS)
class attention_by_hand(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.fc = nn.Linear(8, 24), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        weights = (q @ k.transpose(1, 2) / math.sqrt(8)).softmax(-1)
        return self.fc((weights @ v).mean(1))


@member(STEPS, short=True)
class transformer_encoder(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder, self.fc = nn.TransformerEncoder(layer, 1), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.encoder(x).mean(1))


@member(IDS, short=True)
class embedded(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.fc = nn.Embedding(VOCABULARY, 32), nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.embedding(x).mean(1))


@member(IDS)
def embedding_bag() -> nn.Module:
    return nn.Sequential(nn.EmbeddingBag(VOCABULARY, 32), nn.Linear(32, CLASSES))


@member(IDS)
class text_cnn(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.conv = nn.Embedding(VOCABULARY, 8), nn.Conv1d(8, 16, 3)
        self.fc = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(self.embedding(x).transpose(1, 2)).relu().amax(2))


# Control flow, inputs and outputs, precision


@member(ROW, short=True)
class branch_on_batch(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.out = nn.Linear(16, 32), nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc(x).relu()
        return self.out(x if x.shape[0] > 1 else 1.0 * x)


@member(ROW, short=True)
class branch_on_values(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) if x.sum() > 0 else self.fc(-x)


@member(ROW, short=True)
class two_inputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(16, CLASSES), nn.Linear(16, CLASSES)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.a(x) + self.b(y)


@member(ROW, short=True)
class dict_output(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": self.fc(x)}


@member(ROW, short=True)
class tuple_output(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.aux = nn.Linear(16, CLASSES), nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.fc(x), self.aux(x)


@member(ROW, short=True)
def one_logit() -> nn.Module:
    return nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 1))


@member(IMAGE, short=True)
def segmentation() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, CLASSES, 1))


@member(ROW, short=True)
def half() -> nn.Module:
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, CLASSES)).half()


@member(ROW, short=True)
def bfloat16() -> nn.Module:
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, CLASSES)).bfloat16()


@member(ROW, short=True)
def double() -> nn.Module:
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, CLASSES)).double()
