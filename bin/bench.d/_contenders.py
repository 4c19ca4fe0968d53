"""Who is measured by `bin/bench extract`: the tutorial's loop, featx on its runtimes, and the tools of others.

Each is made once (networks loaded, prepared and tried), and then turns all files of a folder into rows of features as
often as it is asked to.
"""

import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image

from featx.manifest.source import read_source
from featx.spec import FeatureRequest
from featx.vision.backbones import Backbone, load_backbone
from featx.vision.engine import EngineOptions, Job, iter_batches
from featx.vision.multi_device import make_embedder
from featx.vision.registry import classifier_of
from featx.vision.runtimes import make_runtime

MANY = 1_000_000
"""Images for which a runtime is chosen: what it costs to prepare it is printed apart, and not a part of images/s."""

TIMM_NAMES = {"mobilenet_v2": "mobilenetv2_100", "vit_b_16": "vit_base_patch16_224", "convnext_tiny": "convnext_tiny"}


class NotInstalledError(Exception):
    """A tool that is measured only where it is installed."""


@dataclass(frozen=True)
class Contender:
    """One column of the table.

    Attributes
    ----------
    name : str
        As it is printed.
    run : callable
        Computes the features of all images once and returns how many.
    prepared : float
        Seconds of making it.
    """

    name: str
    run: Callable[[], int]
    prepared: float


def network_of(model: str) -> torch.nn.Module:
    """The network as a tutorial makes it a feature extractor: its classifier replaced by nothing."""
    network = torchvision.models.get_model(model, weights=None).eval()
    parent, _, name = (classifier_of(network) or "").rpartition(".")
    setattr(network.get_submodule(parent), name, torch.nn.Identity())
    return network


def backbone_of(model: str, dtype: str = "float32") -> Backbone:
    return load_backbone(FeatureRequest(backbone=model, weights="random", dtype=dtype))


def transform_of(model: str) -> Callable[[Image.Image], torch.Tensor]:
    """The preprocess that featx takes with random weights: that of the model's first weights."""
    weights = next(iter(torchvision.models.get_model_weights(model)))
    transform: Callable[[Image.Image], torch.Tensor] = weights.transforms()
    return transform


def loop(network: torch.nn.Module, transform: Callable[[Image.Image], torch.Tensor], folder: Path) -> int:
    """(a): ImageFolder, a DataLoader with two workers, eval, no_grad, one batch after another."""
    images = torchvision.datasets.ImageFolder(str(folder), transform)
    rows = []
    with torch.no_grad():
        for batch, _ in torch.utils.data.DataLoader(images, batch_size=32, num_workers=2):
            rows.append(network(batch).flatten(1).numpy())
    return len(np.concatenate(rows))


def tutorial(model: str, folder: Path) -> Callable[[], int]:
    network, transform = network_of(model), transform_of(model)
    return lambda: loop(network, transform, folder)


def featx(model: str, folder: Path, *, runtime: str, dtype: str = "float32") -> Callable[[], int]:
    """(b), (c) and (e): the engine of ``featx extract``, its decoding processes included."""
    manifest = read_source(folder)
    embedder = make_embedder(backbone_of(model, dtype), device="cpu", runtime=runtime, n_images=MANY)
    jobs = [Job(embedder, range(len(manifest)))]
    return lambda: sum(len(batch.features) for _, batch in iter_batches(manifest, jobs, EngineOptions()))


def bare(model: str, n: int, *, runtime: str, dtype: str = "float32") -> Callable[[], int]:
    """(d): the forward pass of a runtime on a batch that is in memory already."""
    backbone = backbone_of(model, dtype)
    run = make_runtime(runtime, [backbone], "cpu", n_images=MANY)
    height, width = backbone.spec.preprocess.crop
    images = torch.randn(32, 3, height, width).contiguous(memory_format=torch.channels_last)

    def compute() -> int:
        with torch.inference_mode():
            for _ in range(-(-n // 32)):
                run(images)
        return 32 * -(-n // 32)

    return compute


def timm_loop(model: str, folder: Path) -> Callable[[], int]:
    _need("timm")
    import timm

    network = timm.create_model(TIMM_NAMES.get(model, model), pretrained=False, num_classes=0).eval()
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=network))
    return lambda: loop(network, transform, folder)


def thingsvision(model: str, folder: Path) -> Callable[[], int]:
    _need("thingsvision")
    from thingsvision import get_extractor
    from thingsvision.utils.data import DataLoader, ImageDataset

    extractor = get_extractor(model_name=model, source="torchvision", device="cpu", pretrained=False)
    transform = transform_of(model)
    module = (classifier_of(torchvision.models.get_model(model, weights=None)) or "").rpartition(".")[0]
    module = {"resnet18": "avgpool", "resnet50": "avgpool"}.get(model, module)

    def run() -> int:
        dataset = ImageDataset(root=str(folder), out_path=str(folder.parent), backend="pt", transforms=transform)
        batches = DataLoader(dataset=dataset, batch_size=32, backend="pt")
        features = extractor.extract_features(
            batches=batches, module_name=module, flatten_acts=True, output_type="ndarray"
        )
        return len(features)

    return run


def embetter(model: str, folder: Path) -> Callable[[], int]:
    _need("embetter")
    import timm
    from embetter.vision import ImageLoader, TimmEncoder

    create, timm.create_model = timm.create_model, _without_weights(timm.create_model)
    try:
        encoder = TimmEncoder(TIMM_NAMES.get(model, model))
    finally:
        timm.create_model = create
    files = [str(path) for path in sorted(folder.rglob("*.jpg"))]
    return lambda: len(encoder.transform(ImageLoader().transform(files)))


def make(name: str, maker: Callable[[], Callable[[], int]]) -> Contender:
    """Make a contender and let it run once, so that nothing of what comes first is in its time."""
    start = time.perf_counter()
    run = maker()
    run()
    return Contender(name, run, time.perf_counter() - start)


def _need(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise NotInstalledError(module)


def _without_weights(create: Callable[..., torch.nn.Module]) -> Callable[..., torch.nn.Module]:
    """timm's function with random weights: what is measured is the speed, and no weights are downloaded."""
    return lambda name, **options: create(name, **(options | {"pretrained": False}))
