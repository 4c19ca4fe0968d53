"""``featx fit --auto``: its options, and the run."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featx.cli import options, output
from featx.errors import UsageError

if TYPE_CHECKING:
    from featx.fit import FitOptions, FitResult
    from featx.learn.search_ledger import SearchLedger

READING = ("window", "percentiles", "bands", "decoder")


def auto_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--auto`` and what goes with it, and hidden those of ``featx extract`` that say how SOURCE is read."""
    command = _hidden(options.source_options)(_hidden(options.reading_options)(command))
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


_OPTIONS = (
    click.option("--auto", is_flag=True,
        help="SOURCE is images: backbones race on growing parts of them, and the winner is fitted. Takes the options "
        "of featx extract that say how SOURCE is read (--group-column, --group-regex, --window ...).",
    ),
    click.option("--auto-backbone", "auto_backbones", multiple=True, metavar="NAME",
        help="What races; repeat it.  [default: featx-mini, mobilenet_v2, resnet18, resnet50, convnext_tiny]"),
    click.option("--auto-weights", multiple=True, metavar="NAME=WEIGHTS",
        help="Weights of a backbone (a file, a member, random:SEED), as for featx extract."),
    click.option("--auto-cache", default="cache", show_default=True, metavar="FOLDER",
        help="Where the feature files are kept; what is there already is not computed again."),
    click.option("--auto-first", type=click.IntRange(min=1), default=100, show_default=True, metavar="N",
        help="Images of the first rung; each further one has twice as many."),
    click.option("--auto-ties", type=click.Choice(["best", "smaller"]), default="best", show_default=True,
        help="Of backbones that cannot be told apart: the best by the inner folds, or the smallest network."),
    click.option("--auto-device", default="auto", show_default=True, metavar="NAME",
        help="Where the networks run, as --device of featx extract."),
)  # fmt: skip


def _hidden(added: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Add options without showing them."""

    def decorate(command: Any) -> Any:
        before = list(getattr(command, "__click_params__", ()))
        command = added(command)
        for parameter in command.__click_params__:
            if parameter not in before:
                parameter.hidden = True
        return command

    return decorate


def take_auto(values: dict[str, Any]) -> dict[str, Any] | None:
    """Take the values of `auto_options` out of a command's keyword arguments; None: not ``--auto``.

    Raises
    ------
    UsageError
        One of the others is given without it.
    """
    context = click.get_current_context()
    chosen = {name: values.pop(name) for name in _names()}
    if chosen.pop("auto"):
        return chosen
    given = click.core.ParameterSource.COMMANDLINE
    for parameter in context.command.params:
        if parameter.name in chosen and context.get_parameter_source(parameter.name) == given:
            raise UsageError(
                f"{parameter.opts[0]} says how images are read and raced: it needs --auto (for a feature file "
                "give it to featx extract)"
            )
    return None


def _names() -> list[str]:
    """List the names of the values of `auto_options`."""

    def carrier() -> None:
        """Carry them."""

    return [parameter.name for parameter in auto_options(carrier).__click_params__]  # type: ignore[attr-defined]


def fit_auto(
    source: str, chosen: dict[str, Any], fit_options: FitOptions, ledger: SearchLedger | None, *, quiet: bool
) -> FitResult:
    """Race the backbones and fit the winner; `chosen` are the values of `auto_options`."""
    from featx.race import RaceOptions, RaceRules, race
    from featx.spec import FeatureRequest
    from featx.vision.engine import EngineOptions

    if Path(source).suffix in (".h5", ".hdf5"):
        raise UsageError(f"{source} is a feature file by its name, and --auto takes images: leave out --auto")
    race_options = RaceOptions(
        **({"backbones": chosen["auto_backbones"]} if chosen["auto_backbones"] else {}),
        weights=_weights(chosen["auto_weights"]),
        folder=chosen["auto_cache"],
        rules=RaceRules(first=chosen["auto_first"], ties=chosen["auto_ties"]),
        reading=FeatureRequest(**{name: chosen[name] for name in READING}),
    )
    started = False

    def watch(step: str, unit: str) -> AbstractContextManager[output.Advance]:
        nonlocal started
        started = started or unit == "images"
        return output.progress(step, unit, quiet=quiet)

    try:
        return race(
            source,
            race_options,
            fit_options,
            source_options=options.read_source_options(chosen),
            engine=EngineOptions(device=chosen["auto_device"]),
            progress=watch,
            on_download=output.downloads(quiet=quiet),
            notify=output.say_warning,
            ledger=ledger,
        )
    except KeyboardInterrupt:
        if started:
            output.say(
                f"features computed so far are kept in {chosen['auto_cache']}: the same command goes on from there"
            )
        raise


def _weights(given: tuple[str, ...]) -> dict[str, str]:
    """Read ``NAME=WEIGHTS``."""
    weights: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise UsageError(f"--auto-weights {text}: expected NAME=WEIGHTS, as in resnet18=resnet18.pth")
        if name in weights:
            raise UsageError(f"--auto-weights: {name} is there twice")
        weights[name] = value
    return weights
