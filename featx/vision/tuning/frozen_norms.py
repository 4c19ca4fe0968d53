"""Convolutions with the batch norms behind them, in one: of a network whose batch norms keep their statistics.

Such a norm is a factor and a summand for each channel. Put into the convolution's weights, which are few, they cost
nothing on the feature maps, which are large: neither a forward nor a backward pass over them, nor a copy kept between
the two. Gradients reach weights, gamma and beta through the product, so what is trained is what was trained before.
"""

from __future__ import annotations

import torch
from torch import fx, nn

from featx.vision.graph import fold_batch_norms


class NormedConvolution(nn.Module):
    """A convolution and its batch norm; their parameters stay theirs.

    Parameters
    ----------
    convolution : nn.Conv2d
    norm : nn.BatchNorm2d
        With statistics; it is read as in eval mode.
    """

    def __init__(self, convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.convolution, self.norm = convolution, norm

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return normed values (B, n_channels, h, w) of values (B, n_in, h', w')."""
        convolution, norm = self.convolution, self.norm
        normed: torch.Tensor
        if not convolution.weight.requires_grad and any(own.requires_grad for own in norm.parameters()):
            # gamma's gradient would come by that of all weights, which nobody needs
            normed = norm(convolution(values))
            return normed
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = (norm.running_var + norm.eps).rsqrt()
        if norm.weight is not None:
            scale = scale * norm.weight
        mean = norm.running_mean if convolution.bias is None else norm.running_mean - convolution.bias
        shift = -mean * scale if norm.bias is None else norm.bias - mean * scale
        weight = convolution.weight * scale.view(-1, 1, 1, 1)
        normed = convolution._conv_forward(values, weight, shift)
        return normed


def join_norms(graphed: fx.GraphModule) -> fx.GraphModule:
    """Return a graph in which each batch norm behind a convolution is one with it, as far as nothing reads between."""
    return fold_batch_norms(graphed, NormedConvolution)
