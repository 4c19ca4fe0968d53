"""The shipped backbone: its size, its weights, and features that do not depend on who else is in the batch."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from featx.vision.mini import (
    IMAGE_SIZE,
    MEAN,
    N_FEATURES,
    STD,
    WEIGHTS_FILE,
    FeatxMini,
    featx_mini,
    load_featx_mini_weights,
)

# fmt: off
GOLDEN = [
    0.47546, 0.56019, 0.10371, 0.72007, 0.39991, 0.073, 0.0, 0.12158,
    0.0, 0.0, 0.0, 0.02542, 0.0, 0.0, 0.02024, 0.02142,
]
# fmt: on
"""Every 58th feature of `picture(42)` with the shipped weights."""


@pytest.fixture(scope="module")
def network() -> FeatxMini:
    return load_featx_mini_weights(featx_mini())


def picture(seed: int, size: tuple[int, int] = (160, 140)) -> Image.Image:
    """Smooth coloured noise, which resizing and centre-cutting leave alone on every platform up to rounding."""
    coarse = np.random.RandomState(seed).randint(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def preprocess(image: Image.Image) -> torch.Tensor:
    scale = IMAGE_SIZE / min(image.size)
    width, height = (round(side * scale) for side in image.size)
    left, top = (width - IMAGE_SIZE) // 2, (height - IMAGE_SIZE) // 2
    image = image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(image.crop((left, top, left + IMAGE_SIZE, top + IMAGE_SIZE)), dtype=np.float32) / 255
    return torch.from_numpy((pixels - np.float32(MEAN)) / np.float32(STD)).permute(2, 0, 1)


def features(network: FeatxMini, images: list[Image.Image]) -> torch.Tensor:
    with torch.inference_mode():
        return network(torch.stack([preprocess(image) for image in images]))


def test_has_at_most_one_and_a_half_million_weights() -> None:
    assert sum(parameter.numel() for parameter in featx_mini().parameters()) <= 1_500_000


def test_weights_file_is_float16_and_under_three_megabytes() -> None:
    assert WEIGHTS_FILE.stat().st_size < 3_000_000
    with safe_open(WEIGHTS_FILE, framework="pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float16}  # noqa: SIM118 (not a dict)


def test_loaded_weights_are_finite_float32_and_differ_from_random_ones(network: FeatxMini) -> None:
    random = featx_mini().state_dict()
    for name, tensor in network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        assert tensor.dtype == torch.float32
        assert torch.isfinite(tensor).all()
        assert not torch.equal(tensor, random[name])


def test_loading_into_another_network_is_refused() -> None:
    network = featx_mini()
    network.stage4 = torch.nn.Identity()  # type: ignore[assignment]
    with pytest.raises(RuntimeError, match="stage4"):
        load_featx_mini_weights(network)


def test_network_comes_in_eval_mode(network: FeatxMini) -> None:
    assert not any(module.training for module in network.modules())


def test_features_out_can_be_hooked_and_is_the_feature_vector(network: FeatxMini) -> None:
    seen = []
    with network.features_out.register_forward_hook(lambda _module, _inputs, output: seen.append(output)):
        result = features(network, [picture(0), picture(1)])
    assert result.shape == (2, N_FEATURES)
    assert result.dtype == torch.float32
    assert torch.equal(seen[0], result)


def test_an_image_alone_has_the_features_it_has_in_a_batch(network: FeatxMini) -> None:
    images = [picture(seed) for seed in range(7)]
    together = features(network, images)
    alone = torch.cat([features(network, [image]) for image in images])
    assert (alone - together).abs().max() < 1e-4 * together.std()


def test_golden_features_pin_the_weights(network: FeatxMini) -> None:
    """A change of the weights, the architecture or the normalisation changes every feature file made with them."""
    result = features(network, [picture(42)])[0]
    golden = torch.tensor(GOLDEN)
    assert (result[:: N_FEATURES // len(GOLDEN)] - golden).abs().max() < 1e-3 * result.std()


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(picture(1).convert("L"), id="grey"),
        pytest.param(picture(2).point(lambda value: value // 32), id="very dark"),
        pytest.param(picture(3, (900, 130)), id="wide"),
        pytest.param(picture(4, (131, 700)), id="tall"),
        pytest.param(picture(5, (9, 8)), id="tiny"),
        pytest.param(Image.new("RGB", (200, 200)), id="black"),
        pytest.param(Image.new("RGB", (200, 200), (255, 255, 255)), id="white"),
    ],
)
def test_unusual_images_give_finite_features_of_their_own(network: FeatxMini, image: Image.Image) -> None:
    result, usual = features(network, [image, picture(0)])
    assert torch.isfinite(result).all()
    assert result.std() > 0.05 * usual.std()
    assert (result - usual).abs().max() > 0.1 * usual.std()


@pytest.mark.parametrize(("height", "width"), [(128, 128), (97, 161), (32, 32), (224, 224)])
def test_any_size_of_image_gives_the_same_number_of_features(network: FeatxMini, height: int, width: int) -> None:
    with torch.inference_mode():
        assert network(torch.zeros(2, 3, height, width)).shape == (2, N_FEATURES)
