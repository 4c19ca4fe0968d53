"""Options that several commands share, and how their values become records."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from featx.errors import UsageError
from featx.spec import VIEW_KINDS
from featx.vision.engines import ENGINES

if TYPE_CHECKING:
    from featx.learn.judgement import Caution
    from featx.manifest.source import SourceOptions
    from featx.vision.engine import EngineOptions

Command = TypeVar("Command", bound=Callable[..., Any])


class Pair(click.ParamType):  # type: ignore[type-arg]  # generic only in newer clicks
    """Two numbers as ``LO,HI``."""

    name = "LO,HI"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, float]:
        """Split at the comma; LO must be below HI."""
        if isinstance(value, tuple):
            return value
        try:
            low, high = (float(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not two numbers as LO,HI", param, ctx)
        if not low < high:
            self.fail(f"{value!r}: LO must be below HI", param, ctx)
        return low, high


class Bands(click.ParamType):  # type: ignore[type-arg]
    """One number, or three as ``R,G,B``; each from 1 on."""

    name = "R,G,B"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Split at the commas."""
        if isinstance(value, tuple):
            return value
        try:
            bands = tuple(int(part) for part in value.split(","))
        except ValueError:
            bands = ()
        if len(bands) not in (1, 3) or min(bands) < 1:
            self.fail(f"{value!r} is not one band, or three as in 4,3,2, counted from 1", param, ctx)
        return bands


class Words(click.ParamType):  # type: ignore[type-arg]
    """Some of a few words, as ``A,B``."""

    name = "A,B"

    def __init__(self, *words: str) -> None:
        self.words = words

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Split at the commas; each must be known."""
        if isinstance(value, tuple):
            return value
        given = tuple(word.strip() for word in value.split(","))
        unknown = [word for word in given if word not in self.words]
        if unknown:
            self.fail(f"{unknown[0]!r} is none of {', '.join(self.words)}", param, ctx)
        return given


class BatchSize(click.ParamType):  # type: ignore[type-arg]
    """A number from 1 on, or ``auto``."""

    name = "N|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """Read the number."""
        if value == "auto":
            return "auto"
        try:
            size = int(value)
        except ValueError:
            size = 0
        if size < 1:
            self.fail(f"{value!r} is neither a number from 1 on nor auto", param, ctx)
        return size


class Grid(click.ParamType):  # type: ignore[type-arg]
    """A logarithmic grid as ``LO:HI:N``."""

    name = "LO:HI:N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, float, int]:
        """Split at the colons; 0 < LO <= HI, N at least 1."""
        if isinstance(value, tuple):
            return value
        try:
            low, high, count = value.split(":")
            grid = float(low), float(high), int(count)
        except ValueError:
            self.fail(f"{value!r} is not LO:HI:N, as in 1e-6:1e3:10", param, ctx)
        if not 0 < grid[0] <= grid[1] or grid[2] < 1:
            self.fail(f"{value!r}: 0 < LO <= HI and N >= 1 are needed", param, ctx)
        return grid


def _stack(*decorators: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


source_options: Callable[[Any], Any] = _stack(
    click.option(
        "--layout",
        type=click.Choice(["auto", "classes", "splits", "flat"]),
        default="auto",
        show_default=True,
        help="How SOURCE's folders are read: class folders, train/val/test folders of them, or just images.",
    ),
    click.option("--root", metavar="FOLDER", help="The folder that a table's paths start from (default: the table's)."),
    *(
        click.option(f"--{role}-column", default=role, show_default=True, metavar="NAME", help=f"In a table: {what}.")
        for role, what in (
            ("path", "the files"),
            ("label", "the classes"),
            ("group", "patients, sites or objects"),
            ("split", "train, val or test"),
            ("fold", "folds of your own"),
        )
    ),
    click.option(
        "--group-regex", metavar="REGEX", help="The group is what the first (...) matches in the key: '(patient\\d+)_'."
    ),
    click.option(
        "--frames",
        type=click.Choice(["first", "all"]),
        default="first",
        show_default=True,
        help="Of TIFFs, animations and DICOM files of several images: the first, or each as a sample.",
    ),
    click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only N images, spread over SOURCE."),
)

reading_options: Callable[[Any], Any] = _stack(
    click.option(
        "--window",
        type=Pair(),
        metavar="LO,HI",
        help="Values that become 0 and 255 in images of more than 8 bits, and in DICOM (as in CT: -160,240).",
    ),
    click.option(
        "--percentiles",
        type=Pair(),
        metavar="LO,HI",
        help="Instead of --window: percentiles of each image's own values, as in 2,98.",
    ),
    click.option(
        "--bands",
        type=Bands(),
        default=(),
        metavar="R,G,B",
        help="Bands of TIFFs that become red, green and blue, as in 4,3,2; or one for grey.",
    ),
    click.option(
        "--decoder",
        type=click.Choice(["pillow", "pillow-draft", "nvjpeg"]),
        default="pillow",
        show_default=True,
        help="pillow-draft decodes large JPEGs at a reduced scale, nvjpeg on an NVIDIA GPU: faster, other numbers; "
        "part of the spec.",
    ),
)

engine_options: Callable[[Any], Any] = _stack(
    click.option(
        "--engine",
        type=click.Choice(list(ENGINES)),
        default="local",
        show_default=True,
        help="Where the work is done: on this machine, or on a Ray cluster (featx[ray]).",
    ),
    click.option(
        "--ray-address",
        metavar="ADDRESS",
        help="Of a running cluster: auto, HOST:PORT or ray://... (default: one of this machine alone).",
    ),
    click.option(
        "--ray-actors",
        type=click.IntRange(min=1),
        metavar="N",
        help="Processes of the cluster that compute (default: as many as there is room for).",
    ),
    click.option("--ray-cpus", type=click.FloatRange(min=0, min_open=True), metavar="N", help="Cores of each of them."),
    click.option(
        "--ray-gpus", type=click.FloatRange(min=0), metavar="N", help="GPUs of each of them, also a fraction."
    ),
    click.option(
        "--runtime",
        default="auto",
        show_default=True,
        metavar="NAME",
        help="What executes the network: auto, torch, compile, openvino or onnxruntime.",
    ),
    click.option(
        "--device",
        default="auto",
        show_default=True,
        metavar="NAME",
        help="auto, cpu, cuda, cuda:1, cuda:all or mps; several with commas.",
    ),
    click.option(
        "--batch-size",
        type=BatchSize(),
        default=32,
        show_default=True,
        metavar="N|auto",
        help="Images in one forward pass, which decides nothing beyond rounding; auto tries which is fastest.",
    ),
    click.option(
        "--num-workers",
        type=click.IntRange(min=0),
        metavar="N",
        help="Processes that decode images (default: one for each core); 0: this one, which a bad image may then end.",
    ),
    click.option(
        "--time-limit",
        type=click.FloatRange(min=0, min_open=True),
        default=60.0,
        show_default=True,
        metavar="SECONDS",
        help="An image that is still being decoded after so long has failed.",
    ),
    click.option(
        "--preprocess",
        type=click.Choice(["cpu", "device"]),
        default="cpu",
        show_default=True,
        help="Where images are resized, to the same bits: by the decoding processes, or on the device, where a GPU "
        "waits for them.",
    ),
)

view_options: Callable[[Any], Any] = _stack(
    click.option(
        "--views", "n_views", type=click.IntRange(min=1), default=1, show_default=True, metavar="N",
        help="Rows for each image: as it is, and N - 1 augmented readings; part of the spec.",
    ),
    click.option(
        "--view-kinds", type=Words("flip", "crop", "rotate", "colour", "turn"), metavar="A,B",
        default=",".join(VIEW_KINDS), show_default=True,
        help="What views may do: mirror, crop, rotate a little, change colours, turn by quarters. Leave out flip where "
        "left and right matter.",
    ),
    click.option(
        "--view-seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seeds the views."
    ),
)  # fmt: skip

trust_options: Callable[[Any], Any] = _stack(
    click.option(
        "--calibration",
        type=click.Choice(["auto", "none", "temperature", "sigmoid", "isotonic"]),
        default="auto",
        show_default=True,
        help="What makes probabilities come true as often as they say, learnt out of fold; auto chooses.",
    ),
    click.option(
        "--conformal",
        type=click.Choice(["auto", "on", "off"]),
        default="auto",
        show_default=True,
        help="Keep the folds' heads for `predict --coverage`; auto: where they are small.",
    ),
    click.option(
        "--novelty/--no-novelty",
        default=True,
        show_default=True,
        help="Keep features of training images, so that predict can flag what is unlike them.",
    ),
)

caution_options: Callable[[Any], Any] = _stack(
    click.option(
        "--coverage",
        type=float,
        metavar="SHARE",
        help="Add a set of classes for each image that holds the true one this often, as in 0.9.",
    ),
    click.option("--coverage-per-class", "per_class", is_flag=True, help="Hold the coverage for each class."),
    click.option(
        "--abstain-below",
        type=float,
        metavar="P",
        help="Leave the class open where its probability is below P, as in 0.8.",
    ),
    click.option(
        "--false-alarms",
        type=float,
        metavar="SHARE",
        help="Of images like the training set's, how many may be flagged as unlike it.  [default: 0.05]",
    ),
)

json_option: Callable[[Any], Any] = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object to stdout, nothing else."
)
quiet_option: Callable[[Any], Any] = click.option("-q", "--quiet", is_flag=True, help="No progress.")


def read_source_options(values: dict[str, Any]) -> SourceOptions:
    """Take the values of `source_options` out of a command's keyword arguments."""
    from featx.manifest.source import SourceOptions

    names = ("layout", "root", "group_regex", "frames", "limit")
    columns = ("path_column", "label_column", "group_column", "split_column", "fold_column")
    return SourceOptions(**{name: values.pop(name) for name in names + columns})


def read_caution(values: dict[str, Any]) -> Caution:
    """Take the values of `caution_options` out of a command's keyword arguments."""
    from featx.learn.judgement import Caution

    names = ("coverage", "per_class", "abstain_below", "false_alarms")
    return Caution(**{name: values.pop(name) for name in names})


_RAY = {
    "ray_address": "address",
    "ray_actors": "n_actors",
    "ray_cpus": "cpus_per_actor",
    "ray_gpus": "gpus_per_actor",
}  # the option to the field of RayOptions


def read_engine_options(values: dict[str, Any]) -> EngineOptions:
    """Take the values of `engine_options` out of a command's keyword arguments."""
    from featx.vision.engine import EngineOptions

    names = ("engine", "runtime", "device", "batch_size", "num_workers", "time_limit", "preprocess")
    chosen = {name: values.pop(name) for name in names}
    given = {field: value for option, field in _RAY.items() if (value := values.pop(option)) is not None}
    if chosen["engine"] != "ray":
        if given:
            raise UsageError("the options --ray-... have no meaning without --engine ray")
        return EngineOptions(**chosen)
    from featx.vision.ray_cluster import RayOptions

    return EngineOptions(**chosen, ray=RayOptions(**given))
