"""`featx-mini`: the small backbone whose weights ship inside the package.

A residual network of 1.4 million weights, trained by `bin/train-mini` to imitate a MobileNetV2. docs/featx-mini.md says
on what, how well it does, and what it is not for.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional
from torchvision.ops import SqueezeExcitation

CHANNELS = (32, 64, 128, 192, 512)
N_FEATURES = sum(CHANNELS)
IMAGE_SIZE = 128
"""Pixels: the shorter side is resized to it (bilinear, antialiased), then a centre square of it is cut out."""
MEAN = (0.485, 0.456, 0.406)
"""Subtracted from the channels (red, green, blue) of an image in [0, 1]: ImageNet's mean."""
STD = (0.229, 0.224, 0.225)
"""Divides the channels afterwards: ImageNet's standard deviation."""
WEIGHTS_FILE = Path(__file__).parent / "weights" / "featx-mini.safetensors"


def _convolution(in_channels: int, channels: int, size: int, stride: int = 1) -> nn.Sequential:
    """Build a convolution and its batch norm."""
    convolution = nn.Conv2d(in_channels, channels, size, stride, size // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, their channels weighted by what the whole image shows, and a shortcut around them.

    He et al. 2016, https://arxiv.org/abs/1512.03385; Hu et al. 2018 (squeeze and excitation),
    https://arxiv.org/abs/1709.01507.
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _convolution(in_channels, channels, 3, stride)
        self.conv2 = _convolution(channels, channels, 3)
        self.attention = SqueezeExcitation(channels, channels // 4)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.shortcut = _convolution(in_channels, channels, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, in_channels, h, w) to (B, channels, h / stride, w / stride), rounded up."""
        y = self.conv2(functional.relu(self.conv1(x)))
        return functional.relu(self.attention(y) + self.shortcut(x))


class FeatxMini(nn.Module):
    """Four residual stages and one of a 1x1 convolution; the features are the average-pooled outputs of all five.

    The early stages carry colour and texture, the late ones parts of objects. Submodules to hook: ``stem``, ``stage1``
    to ``stage5`` ((B, channels, h, w) maps, 4, 4, 8, 16, 32 and 32 times as small as the image), and ``features_out``,
    whose output is the feature vector.
    """

    def __init__(self) -> None:
        super().__init__()
        one, two, three, four, five = CHANNELS
        # The first stage sees a map four times as small: the time of a small network goes into its large maps.
        self.stem = nn.Sequential(_convolution(3, one, 3, 2), nn.ReLU(), _convolution(one, one, 3, 2), nn.ReLU())
        self.stage1 = nn.Sequential(ResidualBlock(one, one, 1), ResidualBlock(one, one, 1))
        self.stage2 = nn.Sequential(ResidualBlock(one, two, 2), ResidualBlock(two, two, 1))
        self.stage3 = nn.Sequential(ResidualBlock(two, three, 2), ResidualBlock(three, three, 1))
        self.stage4 = ResidualBlock(three, four, 2)
        self.stage5 = nn.Sequential(_convolution(four, five, 1), nn.ReLU())
        self.features_out = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the features of a batch.

        Parameters
        ----------
        x : torch.Tensor
            (B, 3, h, w) float32, RGB in [0, 1], `MEAN` subtracted, divided by `STD`; trained for h = w = `IMAGE_SIZE`.

        Returns
        -------
        torch.Tensor
            (B, `N_FEATURES`) float32, zero or more.
        """
        pooled = []
        x = self.stem(x)
        for stage in (self.stage1, self.stage2, self.stage3, self.stage4, self.stage5):
            x = stage(x)
            pooled.append(x.float().mean(dim=(2, 3)))
        features: torch.Tensor = self.features_out(torch.cat(pooled, dim=1))
        return features


def featx_mini() -> FeatxMini:
    """Build the network with torch's default random weights, in eval mode."""
    return FeatxMini().eval()


def load_featx_mini_weights(network: FeatxMini, path: Path = WEIGHTS_FILE) -> FeatxMini:
    """Read the shipped weights (float16 in the file) into a network as float32.

    Parameters
    ----------
    network : FeatxMini
        Changed in place.
    path : Path, default=WEIGHTS_FILE
        A safetensors file that `bin/train-mini` wrote.

    Returns
    -------
    FeatxMini
        The same network.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    RuntimeError
        If the file's tensors are not this network's.
    """
    state = {name: tensor.float() for name, tensor in load_file(path).items()}
    wanted = network.state_dict()
    # Batch norm's counters of training batches are no weights: they are not in the file and keep their values.
    state |= {name: wanted[name] for name in wanted if name.endswith("num_batches_tracked")}
    network.load_state_dict(state)
    return network
