"""``featx finetune``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featx.cli import options, output
from featx.cli.finetune_report import print_finetune
from featx.cli.together import together

if TYPE_CHECKING:
    from featx.finetune import FinetuneJob, FinetuneOptions, FinetuneProgress
    from featx.vision.tuning.history import Recorder
    from featx.vision.tuning.ranks import Ranks

_FOLDS = 5  # of the frozen classifier, where one alone is tuned

_RECIPE = (
    "train", "epochs", "optimiser", "lr", "head_lr", "momentum", "weight_decay", "batch_size", "schedule", "warmup",
    "layer_decay", "unfreeze", "l2sp", "l2sp_beta", "l2sp_head", "l2sp_all", "label_smoothing", "mixup",
    "cutmix", "class_weight", "clip", "ema", "dtype", "images", "patience", "random_state",
    "lora_rank", "lora_alpha", "compile",
)  # fmt: skip


@click.command("finetune")
@click.argument("source", metavar="SOURCE", type=click.Path())
@click.option("-o", "--output", "target", required=True, metavar="TUNED.featx", help="Where the winner is saved.")
@click.option("--from", "start", metavar="NAME.featx", help="Begin with this classifier, as featx fit saved it.")
@click.option("--features", metavar="FILE.h5", help="The same images' feature file; else they are computed first.")
@click.option("--backbone", default="resnet50", show_default=True, metavar="NAME",
    help="Without --from and --features: which network.")  # fmt: skip
@click.option("--weights", default="DEFAULT", show_default=True, metavar="WEIGHTS", help="And its weights.")
@click.option("--image-size", type=click.IntRange(min=1), metavar="PIXELS",
    help="And the side of the images that it sees.  [default: as its weights were evaluated]")  # fmt: skip
@options.source_options
@click.option("--head", "heads", multiple=True, default=["logreg"], show_default=True, metavar="NAME",
    help="Of the frozen classifier; linear ones are where tuning begins.")  # fmt: skip
@click.option("--cv", type=click.IntRange(min=1), default=5, show_default=True,
    help="Folds on which tuned and frozen are compared; 1: on the first of five alone.")  # fmt: skip
@click.option("--inner-cv", type=click.IntRange(min=2), default=5, show_default=True,
    help="Folds in which the frozen head is chosen.")  # fmt: skip
@click.option("--validation", type=click.FloatRange(0, 0.5), default=0.2, show_default=True, metavar="SHARE",
    help="Of each training part, for the choice of the best epoch.")  # fmt: skip
@click.option("--split", type=click.Choice(["auto", "ignore"]), default="auto", show_default=True,
    help="Whether train, val and test are kept apart.")  # fmt: skip
@click.option("--group-near-duplicates", is_flag=True, help="Keep near-duplicates in one fold.")
@click.option("--positive", metavar="CLASS", help="Of two classes, the one whose sensitivity is meant.")
@click.option("--recipe", default="default", show_default=True, metavar="NAME",
    help="default, or head-sgd: the classic tutorial's; the options below change it.")  # fmt: skip
@click.option("--train", type=click.Choice(["head", "last-block", "all", "norm", "lora"]),
    help="What is trained; lora: small matrices beside a transformer's layers.  [all]")  # fmt: skip
@click.option("--lora-rank", type=click.IntRange(min=1), help="Of these matrices.  [8]")
@click.option("--lora-alpha", type=float, help="They count ALPHA / RANK.  [16]")
@click.option("--epochs", type=click.IntRange(min=0), help="At most.  [20]")
@click.option("--lr", type=float, help="Largest learning rate.  [found by a short test]")
@click.option("--head-lr", type=float, help="Of the head.  [that of --lr]")
@click.option("--optimiser", type=click.Choice(["adamw", "sgd"]), help="[adamw]")
@click.option("--momentum", type=float, help="Of sgd.  [0.9]")
@click.option("--batch-size", type=click.IntRange(min=1), help="Images in a step.  [32]")
@click.option("--schedule", type=click.Choice(["cosine", "step", "constant"]), help="[cosine]")
@click.option("--warmup", type=float, help="Share of the steps in which the learning rate rises.  [0.1]")
@click.option("--layer-decay", type=float, help="Learning rate of each block, as a share of the next one's.  [0.9]")
@click.option("--unfreeze", type=float, help="Share of the steps in which blocks open one after the other.  [0]")
@click.option("--l2sp", type=float, help="How strongly weights are drawn back to where they came from.  [0.01]")
@click.option("--l2sp-beta", type=float, help="The same of the head.  [0.01]")
@click.option("--l2sp-head", type=click.Choice(["start", "zero"]), help="Where the head is drawn to.  [start]")
@click.option("--l2sp-all/--l2sp-weights", default=None, help="Biases and norms are drawn back too.")
@click.option("--weight-decay", type=float, help="[0]")
@click.option("--label-smoothing", type=float, help="[0]")
@click.option("--mixup", type=float, help="[0]")
@click.option("--cutmix", type=float, help="[0]")
@click.option("--class-weight", type=click.Choice(["balanced"]), help="Every class counts the same.")
@click.option("--clip", type=float, help="Largest norm of a gradient, 0: any.  [1]")
@click.option("--ema", type=float, help="Decay of a running mean of the weights, 0: none.  [0]")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), help="Of the arithmetic.  [float32]")
@click.option("--compile", type=click.Choice(["auto", "on", "off"]),
    help="torch.compile; auto: on CUDA, from 2,000 steps on.  [auto]")  # fmt: skip
@click.option("--images", type=click.Choice(["photographs", "microscopy", "satellite", "scans", "text", "none"]),
    help="Decides how they are varied: scans and text are not mirrored, what has no up is turned.  "
    "[photographs]")  # fmt: skip
@click.option("--patience", type=click.IntRange(min=0), help="Epochs without a better score, 0: all.  [5]")
@click.option("--allow-missing", is_flag=True, help="Go on although some images cannot be read.")
@click.option("--max-hours", type=click.FloatRange(min=0), help="Refuse what would take longer.")
@click.option("--force", is_flag=True, help="Keep the tuned network whatever the comparison says.")
@click.option("--resume", is_flag=True, help="Go on where the same command was interrupted.")
@click.option("--curves", metavar="FILE.png", help="Draw loss and validation by epoch; also .svg (featx[report]).")
@click.option("--tensorboard", metavar="FOLDER", help="Write TensorBoard's files meanwhile (featx[tensorboard]).")
@click.option("--random-state", type=int, default=0, show_default=True)
@click.option("--num-workers", type=click.IntRange(min=0), help="Processes that decode; default: one for each core.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps.")
@options.quiet_option
@options.json_option
def command(source: str, target: str, quiet: bool, as_json: bool, **values: Any) -> int:
    """Train the network itself on the images of SOURCE, and keep that only where it wins.

    Training begins with the head that is already solved on frozen features, is drawn back to where
    it came from, and is compared with the frozen classifier on the same folds and groups. The
    verdict says better, no evidence, or worse; TUNED.featx holds the frozen classifier unless it
    is better.

    \b
    Example:
      featx finetune photos/ --from photos.featx -o tuned.featx
      featx finetune photos/ --features cache/photos.h5 -o tuned.featx --train last-block --epochs 10
      featx finetune photos/ --backbone resnet18 --group-regex '(p\\d+)_' -o tuned.featx --cv 1
      featx finetune photos/ --from photos.featx -o tuned.featx --resume
      torchrun --nproc-per-node 4 -m featx finetune photos/ -o tuned.featx     (on 4 GPUs)
    """
    with together() as ranks:
        return _run(ranks, source, target, quiet, as_json, values)


def _run(ranks: Ranks, source: str, target: str, quiet: bool, as_json: bool, values: dict[str, Any]) -> int:
    from featx.finetune import Keep, Start, plan_finetune
    from featx.finetuning.material import FEATURES
    from featx.spec import FeatureRequest
    from featx.store.target import check_target
    from featx.vision.engine import EngineOptions
    from featx.vision.tuning.curves import check_curves, draw_curves
    from featx.vision.tuning.history import LINES, read_history

    check_target(target, (".featx",), what="bundles")
    folder, curves = Path(f"{target}.tuning"), values["curves"] and Path(values["curves"])
    if curves:
        check_curves(curves)
    try:
        job = plan_finetune(
            source,
            Start(
                bundle=values["start"],
                features=values["features"],
                request=FeatureRequest(
                    backbone=values["backbone"], weights=values["weights"], image_size=values["image_size"]
                ),
            ),
            _read_options(values),
            source_options=options.read_source_options(values),
            engine=ranks.engine(EngineOptions(num_workers=values["num_workers"], device=values["device"])),
            keep=Keep(folder, values["resume"], _records(values["tensorboard"] if ranks.is_first else None)),
            steps=lambda step, unit: output.progress(step, unit, quiet=quiet),
            notify=output.say,
        )
    except KeyboardInterrupt:
        is_kept = any(folder.glob(f"{FEATURES}*"))
        kept = "; extracted features are kept, and the same command takes them" if is_kept else ""
        output.say(f"stopped before the training: {target} is not written{kept}")
        raise
    try:
        with output.progress("finetune", "images", quiet=quiet) as advance:
            result = job.run(lambda at: advance(at.images, at.n_images, _describe(at)))
    except KeyboardInterrupt:
        if ranks.is_first:
            _keep_frozen(job, target)
        raise
    if not ranks.is_first:
        return 0
    result.save(target)
    if curves:
        taken = {part.name: part.best_epoch for part in result.history}
        draw_curves(read_history(folder / LINES), curves, score=result.frozen.options.scoring, taken=taken)
    if as_json:
        output.print_json({**result.to_dict(), "output": target})
    else:
        print_finetune(result, target, folder)
    return 0


def _records(folder: str | None) -> tuple[Recorder, ...]:
    """Return who else is told of each epoch."""
    from featx.vision.tuning.event_files import EventFiles

    return () if folder is None else (EventFiles(Path(folder)),)


def _read_options(values: dict[str, Any]) -> FinetuneOptions:
    from featx.finetune import FinetuneOptions
    from featx.fit import FitOptions
    from featx.vision.tuning.recipe import find_recipe

    return FinetuneOptions(
        recipe=find_recipe(values["recipe"], **{name: values[name] for name in _RECIPE if values[name] is not None}),
        fit=FitOptions(
            heads=tuple(values["heads"]),
            cv=values["cv"] if values["cv"] > 1 else _FOLDS,
            inner_cv=values["inner_cv"],
            split=values["split"],
            group_near_duplicates=values["group_near_duplicates"],
            positive=values["positive"],
            class_weight=values["class_weight"],
            allow_missing=values["allow_missing"],
            random_state=values["random_state"],
        ),
        **{name: values[name] for name in ("validation", "cv", "max_hours", "force")},
    )


def _keep_frozen(job: FinetuneJob, target: str) -> None:
    """Leave a usable bundle behind: of what has been judged so far, that is the frozen classifier."""
    go_on = "finished epochs are kept: the same command with --resume goes on"
    if Path(target).exists():
        output.say(f"stopped: {target} is left as it was; {go_on}")
        return
    job.save_frozen(target)
    output.say(
        f"stopped: {target} holds the frozen classifier, which is complete; the tuning is not finished. "
        f"{go_on[0].upper()}{go_on[1:]}"
    )


def _describe(at: FinetuneProgress) -> str:
    if at.epoch == 0:
        return f"{at.part}, finding its learning rate"
    score = "" if at.validation is None else f", validation {at.validation:.3f}"
    return f"{at.part}, epoch {at.epoch} of {at.epochs}, loss {at.loss:.3f}{score}"
