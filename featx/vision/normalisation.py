"""Pixels as a network wants them: between about -2 and 2."""

from __future__ import annotations

import torch

from featx.spec import Preprocess


class Normalisation:
    """Turns bytes into normalised floats on a device, to the same bits everywhere.

    Parameters
    ----------
    preprocess : Preprocess
        Its mean and std count.
    device : torch.device or str
        Where pixels are.
    layout : torch.memory_format
        Of the result.
    """

    def __init__(
        self,
        preprocess: Preprocess,
        device: torch.device | str = "cpu",
        layout: torch.memory_format = torch.channels_last,
    ) -> None:
        self._layout = layout
        # A division by a tensor is exact everywhere; by a number, CUDA multiplies with its reciprocal.
        self._full, self._mean, self._std = (
            torch.tensor(values, device=device).view(-1, 1, 1) for values in ((255.0,), preprocess.mean, preprocess.std)
        )

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return float32 (B, 3, h, w) for uint8 (B, 3, h, w)."""
        # In the order of torchvision's own transform, so that the last bit is the same.
        images = pixels.to(torch.float32, memory_format=torch.contiguous_format)
        # On the CPU three times as fast in this layout as in that of the network.
        images.div_(self._full).sub_(self._mean).div_(self._std)
        return images.contiguous(memory_format=self._layout)
