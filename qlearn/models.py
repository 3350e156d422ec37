"""The course's architectures: float models that every technique is applied to.

None holds quantization stubs: lessons add them with ``QuantWrapper``, or use FX mode or
``torch.export``. All can be scripted, traced symbolically and exported.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from torchvision.models import ResNet


class MLP(nn.Module):
    """The 784-256-128-10 perceptron of well-known tutorials, or one of other widths.

    Takes N×1×28×28 (or anything that flattens to N×784) float32, gives N×10 logits. Its weights
    are 784·256 + 256·128 + 128·10 = 234,752 numbers; with the biases, 235,146 parameters.
    """

    def __init__(self, first: int = 256, second: int = 128) -> None:
        super().__init__()
        self.fc1 = nn.Linear(784, first)
        self.relu1 = nn.ReLU()
        self.fc2 = nn.Linear(first, second)
        self.relu2 = nn.ReLU()
        self.fc3 = nn.Linear(second, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, N×10, of images, N×1×28×28."""
        x = x.flatten(1)
        x = self.relu1(self.fc1(x))
        x = self.relu2(self.fc2(x))
        return self.fc3(x)


class SmallCNN(nn.Module):
    """Two convolutions, each with batch norm, ReLU and max-pooling, and a linear layer.

    Parameters
    ----------
    channels
        Of the images: 1 for grey, 3 for colour.
    size
        Height and width of the images in pixels; the linear layer is built for it.
    """

    def __init__(self, channels: int = 1, classes: int = 10, size: int = 28) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 32, 5, padding=2)
        self.bn1 = nn.BatchNorm2d(32)
        self.relu1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(32, 64, 5, padding=2)
        self.bn2 = nn.BatchNorm2d(64)
        self.relu2 = nn.ReLU()
        self.pool2 = nn.MaxPool2d(2)
        self.fc = nn.Linear(64 * (size // 4) ** 2, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, N×classes, of images, N×channels×size×size."""
        x = self.pool1(self.relu1(self.bn1(self.conv1(x))))
        x = self.pool2(self.relu2(self.bn2(self.conv2(x))))
        # Not view(): a quantized convolution's output is channels_last, which view() refuses.
        return self.fc(x.flatten(1))


class ConvBNReLU(nn.Sequential):
    """Convolution "0", batch norm "1", ReLU "2": the names that eager-mode fusion asks for."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__(
            nn.Conv2d(
                inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False
            ),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )


class DepthwiseCNN(nn.Module):
    """A small MobileNet: a stem, four depthwise-separable blocks, a global mean, a classifier.

    Each depthwise filter has its own range of weights, so one scale per tensor serves them badly:
    this is the model that needs scales per channel. The size of the images is free.

    Parameters
    ----------
    channels
        Of the images: 1 for grey, 3 for colour.

    References
    ----------
    Howard et al. 2017, MobileNets (arXiv 1704.04861).
    """

    def __init__(self, channels: int = 1, classes: int = 10) -> None:
        super().__init__()
        self.stem = ConvBNReLU(channels, 32, 3, stride=2)
        widths = ((32, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1))
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(
                    ConvBNReLU(inputs, inputs, 3, stride, groups=inputs),
                    ConvBNReLU(inputs, outputs, 1),
                )
                for inputs, outputs, stride in widths
            )
        )
        self.classifier = nn.Linear(128, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, N×classes, of images, N×channels×H×W."""
        x = self.blocks(self.stem(x))
        return self.classifier(x.mean([2, 3]))


class PhraseLSTM(nn.Module):
    """A character LSTM that reads a phrase and says which class it belongs to.

    Phrases are padded on the left, so the last step has read the whole phrase and its output goes
    to the classifier. (Padded on the right, the last step has mostly read padding, and the model
    learns almost nothing.)

    Parameters
    ----------
    vocabulary
        Number of character ids; id 0 is padding and embeds to zeros.
    """

    def __init__(self, vocabulary: int, classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, 64, padding_idx=0)
        self.lstm = nn.LSTM(64, 256, batch_first=True)
        self.fc = nn.Linear(256, classes)

    def forward(self, ids: Tensor) -> Tensor:
        """Return logits, N×classes, of character ids, N×length int64."""
        outputs, _ = self.lstm(self.embedding(ids))
        return self.fc(outputs[:, -1])


class Attention(nn.Module):
    """Causal self-attention; queries, keys and values are Linear layers of their own."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return N×length×width of the same shape; a position sees those up to itself."""
        q, k, v = self._split(self.query(x)), self._split(self.key(x)), self._split(self.value(x))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(mixed.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


class Block(nn.Module):
    """A transformer's block: attention, then two Linear layers, each added to what came in."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.gelu = nn.GELU()
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return N×length×width of the same shape."""
        x = x + self.attention(self.norm1(x))
        return x + self.down(self.gelu(self.up(self.norm2(x))))


class SmallGPT(nn.Module):
    """A small GPT-2 (Radford et al. 2019): it guesses what follows in a text.

    Parameters
    ----------
    vocabulary
        Number of ids: of characters, or of pieces of words.
    width, layers, heads
        Numbers a position, blocks, and parts that attention is split into.
    context
        Positions that it can look back on, at most.
    """

    def __init__(
        self, vocabulary: int, width: int = 128, layers: int = 4, heads: int = 4, context: int = 128
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.position = nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary)
        # Small, as in GPT-2: with PyTorch's N(0, 1) a short training is spent on shrinking them.
        for embedding in (self.embedding, self.position):
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, ids: Tensor) -> Tensor:
        """Return logits, N×vocabulary×length as cross_entropy takes them, of ids, N×length."""
        places = torch.ones_like(ids).cumsum(1) - 1
        x = self.embedding(ids) + self.position(places)
        return self.head(self.norm(self.blocks(x))).transpose(1, 2)


def resnet18(classes: int = 10, quantizable: bool = False) -> "ResNet":
    """Build torchvision's ResNet-18 with random weights, from N×3×H×W to N×classes logits.

    Parameters
    ----------
    quantizable
        True for the form with stubs and a ``FloatFunctional`` residual add, which eager-mode
        static quantization needs. Both forms have the same state_dict.

    Returns
    -------
    ResNet
        In training mode, like any new module.

    References
    ----------
    torchvision.models.resnet18, torchvision.models.quantization.resnet18; He et al. 2015
    (arXiv 1512.03385).
    """
    import torchvision

    if quantizable:
        return torchvision.models.quantization.resnet18(
            weights=None, quantize=False, num_classes=classes
        )
    return torchvision.models.resnet18(weights=None, num_classes=classes)


def count_parameters(model: nn.Module) -> int:
    """Count the numbers that a float model learns; weights of a converted model do not count."""
    return sum(parameter.numel() for parameter in model.parameters())
