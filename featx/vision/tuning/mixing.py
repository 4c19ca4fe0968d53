"""Mixtures of training images: mixup and CutMix.

Mixup (Zhang et al. 2018, https://arxiv.org/abs/1710.09412) blends two images and their labels; CutMix (Yun et al. 2019,
https://arxiv.org/abs/1905.04899) puts a window of one into another, and the labels count by area.
"""

from __future__ import annotations

import numpy as np
import torch

from featx.vision.tuning.recipe import Recipe


def mix(images: torch.Tensor, targets: torch.Tensor, recipe: Recipe, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mix a batch with itself in another order; what is drawn is a function of the recipe's seed and the step.

    Parameters
    ----------
    images : torch.Tensor
        (B, 3, h, w); not changed.
    targets : torch.Tensor
        (B, n_classes), rows that sum to 1.
    recipe : Recipe
    step : int
    """
    if not recipe.mixup and not recipe.cutmix:
        return images, targets
    rng = np.random.default_rng((recipe.random_state, step, 1))
    by_window = bool(recipe.cutmix) and (not recipe.mixup or rng.random() < 0.5)
    alpha = recipe.cutmix if by_window else recipe.mixup
    share = float(rng.beta(alpha, alpha))
    others = torch.from_numpy(rng.permutation(len(images)))
    if by_window:
        images, share = _paste(images, images[others], share, rng)
    else:
        images = torch.lerp(images[others], images, share)
    return images, torch.lerp(targets[others], targets, share)


def _paste(
    images: torch.Tensor, others: torch.Tensor, share: float, rng: np.random.Generator
) -> tuple[torch.Tensor, float]:
    """Put a window of other images, of about 1 - share of the area, into images; return them and the share left."""
    height, width = images.shape[2:]
    half_height, half_width = (round(side * (1.0 - share) ** 0.5 / 2) for side in (height, width))
    y, x = int(rng.integers(height)), int(rng.integers(width))
    rows = slice(max(0, y - half_height), min(height, y + half_height))
    columns = slice(max(0, x - half_width), min(width, x + half_width))
    pasted = images.clone()
    pasted[:, :, rows, columns] = others[:, :, rows, columns]
    area = (rows.stop - rows.start) * (columns.stop - columns.start)
    return pasted, 1.0 - area / (height * width)
