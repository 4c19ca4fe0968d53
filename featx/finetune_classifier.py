"""The scikit-learn face of a fine-tune: images and labels in, a network that was trained on them out."""

from __future__ import annotations

import functools
import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags, check_consistent_length
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d

from featx.errors import LabelsError, UsageError
from featx.finetuning.labelled import LabelledImages
from featx.image_input import column, image_manifest, read_rows
from featx.learn.calibrated import Calibrated
from featx.learn.contest import enter
from featx.learn.dataset import Features, check_learnable
from featx.learn.linear_layer import LinearLayer
from featx.learn.options import FitOptions
from featx.learn.study import Study
from featx.learn.tuning_parts import plan_final
from featx.manifest.record import Manifest
from featx.spec import FeatureRequest, FeatureSpec
from featx.vision.engine import EngineOptions

if TYPE_CHECKING:
    from featx.vision.embed import Embedder
    from featx.vision.tuning.recipe import Recipe


class FineTuneClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Train a network itself on labelled images, beginning with the head that is solved on its frozen features.

    `fit` keeps a part of what it is given, whole groups of it, to choose the epoch and the blend of start and tuned
    weights by. The start is among those it chooses from: where no epoch is better on that part, the classifier is the
    frozen network with its solved head, and `best_epoch_` is 0. There is no comparison on folds inside `fit`: to know
    whether tuning pays, cross-validate this classifier and ``make_pipeline(ImageFeatures(...), LogisticRegression())``
    on the same folds, or take ``featx finetune``, which does this and says what came of it.

    Parameters
    ----------
    backbone : str
        A torchvision model, ``"featx-mini"`` or ``"package.module:function"``.
    weights : str or path
        As for `featx.ImageFeatures`.
    head : str
        A linear one of ``featx heads``, which is solved first.
    recipe : str
        ``"default"``, or ``"head-sgd"``: the classic tutorial's.
    train, epochs, lr, batch_size, l2sp, images, patience : optional
        See `featx.vision.tuning.recipe.Recipe`; None: the recipe's.
    changes : dict, optional
        Any other value of the recipe, by name: ``{"mixup": 0.2, "class_weight": "balanced"}``.
    validation : float
        Share that is kept for the choice of the epoch, 0 to 0.5; at 0 the last one is taken.
    scoring : str
        What epochs and heads are chosen by; as for ``featx fit``.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.
    num_workers : int or None
        Processes that read and decode; None: one for each core; 0: none, images are decoded in this process.
    random_state : int
        Decides everything that is drawn: the same one gives the same classifier, on a CPU bit for bit.

    Attributes
    ----------
    classes_ : array (n_classes,)
    best_epoch_ : int
        0: the start was best.
    history_ : list of dict
        Of each epoch, that of the start first; see `featx.vision.tuning.epochs.Epoch`.
    spec_ : FeatureSpec
        Of the tuned network.
    weights_ : bytes
        Of the tuned network, as safetensors; with the head all that a pickle holds.
    head_ : classifier
        On the tuned network's features.

    Examples
    --------
    >>> from sklearn.model_selection import GroupKFold, cross_validate
    >>> model = FineTuneClassifier("resnet18", train="last-block", epochs=10)
    >>> cross_validate(
    ...     model, paths, labels, groups=patients, params={"groups": patients}, cv=GroupKFold()
    ... )    # doctest: +SKIP
    """

    def __init__(
        self,
        backbone: str = "resnet50",
        weights: str | os.PathLike[str] = "DEFAULT",
        *,
        head: str = "logreg",
        recipe: str = "default",
        train: str | None = None,
        epochs: int | None = None,
        lr: float | None = None,
        batch_size: int | None = None,
        l2sp: float | None = None,
        images: str | None = None,
        patience: int | None = None,
        changes: dict[str, Any] | None = None,
        validation: float = 0.2,
        scoring: str = "balanced_accuracy",
        device: str = "auto",
        num_workers: int | None = None,
        random_state: int = 0,
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.head = head
        self.recipe = recipe
        self.train = train
        self.epochs = epochs
        self.lr = lr
        self.batch_size = batch_size
        self.l2sp = l2sp
        self.images = images
        self.patience = patience
        self.changes = changes
        self.validation = validation
        self.scoring = scoring
        self.device = device
        self.num_workers = num_workers
        self.random_state = random_state

    def fit(self, X: Any, y: ArrayLike, groups: ArrayLike | None = None) -> FineTuneClassifier:
        """Train.

        Parameters
        ----------
        X : sequence of path, PIL.Image.Image, or uint8 array (height, width[, channels]); or one array of n of them
        y : array (n_images,)
            Classes.
        groups : array (n_images,), optional
            What must not be on both sides of the choice of an epoch: images of one patient. Identical images never
            are.

        Returns
        -------
        FineTuneClassifier
            Itself.

        Raises
        ------
        ImageDecodeError
            If an image cannot be read; names it.
        LabelsError
            One class, or one with too few images or groups.
        InputError
            `X` is empty, or not as long as `y`; a loss that is not finite.
        UsageError, UnknownNameError
            A parameter that is none.
        """
        from featx.vision.backbones import load_backbone
        from featx.vision.tuning.part import PartTrainer

        recipe, options, engine = self._recipe(), self._options(), self._engine()
        classes, names = _read_labels(X, y)
        manifest = image_manifest(X)
        request = FeatureRequest(backbone=self.backbone, weights=os.fspath(self.weights))
        backbone = load_backbone(request)
        shas, rows = read_rows(manifest, _embed(backbone, self.device), engine)
        images = _labelled(manifest, shas, rows, names, groups, options)
        part = plan_final(images.study, validation=self.validation)
        trainer = PartTrainer(backbone, manifest, recipe, engine, n_classes=len(images.classes), score=images.score)
        task = images.task(part)
        outcome = trainer.train(task)
        self.spec_, self.weights_, coef, intercept = trainer.pack(task, outcome.tuned)
        order = [images.classes.index(str(name)) for name in classes]
        layer = LinearLayer(coef[order], intercept[order], part.start.unit_length, classes)
        self.classes_ = classes
        self.head_ = Calibrated.of(layer.to_head(), images.calibration(part, outcome))
        self.best_epoch_ = outcome.tuned.best_epoch
        self.history_ = [asdict(epoch) for epoch in outcome.tuned.history]
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the class (n_images,) of images, as `fit` takes them."""
        return np.asarray(self._head().predict(self._rows(X)))

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return the probability (n_images, n_classes) of each class, in the order of `classes_`."""
        return np.asarray(self._head().predict_proba(self._rows(X)))

    def __sklearn_tags__(self) -> Tags:
        tags: Tags = super().__sklearn_tags__()
        tags.no_validation = True
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = True
        tags.input_tags.string = True
        return tags

    def _head(self) -> Calibrated:
        check_is_fitted(self)
        head: Calibrated = self.head_
        return head

    def _rows(self, X: Any) -> NDArray[np.float32]:
        embedder = _tuned_embedder(self.spec_, self.weights_, self.device, self.backbone)
        return read_rows(image_manifest(X), embedder, self._engine())[1]

    def _recipe(self) -> Recipe:
        from featx.vision.tuning.recipe import find_recipe

        own = ("train", "epochs", "lr", "batch_size", "l2sp", "images", "patience", "random_state")
        given = {name: value for name in own if (value := getattr(self, name)) is not None}
        return find_recipe(self.recipe, **{**(self.changes or {}), **given})

    def _options(self) -> FitOptions:
        if not 0 <= self.validation <= 0.5:
            raise UsageError(f"validation={self.validation:g}: expected 0 to 0.5")
        return FitOptions(
            heads=(self.head,),
            scoring=self.scoring,
            class_weight=(self.changes or {}).get("class_weight"),
            split="ignore",
            random_state=self.random_state,
            n_jobs=1,
        )

    def _engine(self) -> EngineOptions:
        return EngineOptions(num_workers=self.num_workers, device=self.device)


def _read_labels(X: Any, y: ArrayLike) -> tuple[NDArray[Any], NDArray[np.str_]]:
    """Return the classes in scikit-learn's order, and each label as a name."""
    y = column_or_1d(y, warn=True)
    check_consistent_length(column(X), y)
    check_classification_targets(y)
    classes, codes = np.unique(y, return_inverse=True)
    names = np.array([str(name) for name in classes])
    if len(set(names.tolist())) < len(names) or "" in names:
        raise LabelsError(f"classes {classes.tolist()} need names that differ, and none may be empty")
    return classes, names[codes]


def _labelled(
    manifest: Manifest,
    shas: list[str],
    rows: NDArray[np.float32],
    names: NDArray[np.str_],
    groups: ArrayLike | None,
    options: FitOptions,
) -> LabelledImages:
    """Arrange samples and their frozen features as a study."""
    nothing = np.full(len(names), "", dtype=object)
    given = nothing if groups is None else _read_groups(groups)
    check_consistent_length(names, given)
    data = Features(
        X=rows,
        y=names,
        groups=given,
        keys=np.array(manifest.keys, dtype=object),
        splits=nothing,
        folds=nothing,
        sha256=np.array(shas, dtype=object),
        group_source="" if groups is None else "groups",
    )
    check_learnable(data)
    study, _ = Study.arrange(enter(data, views=None, score_views=None, allow_missing=False), options)
    return LabelledImages(study, np.arange(len(names)))


def _read_groups(groups: ArrayLike) -> NDArray[np.object_]:
    """Return groups as names; a sample whose group is None or NaN is a group of its own."""
    given = column_or_1d(groups)
    return np.array(["" if group is None or group != group else str(group) for group in given], dtype=object)


def _embed(backbone: Any, device: str) -> Embedder:
    from featx.vision.embed import Embedder

    return Embedder(backbone, device=device, runtime="torch")  # training begins with just these values


@functools.lru_cache(maxsize=1)
def _tuned_embedder(spec: FeatureSpec, weights: bytes, device: str, allow_code: str) -> Embedder:
    """Put a tuned network on a device; kept beside the classifier, so that a pickle does not hold it twice."""
    from featx.vision.backbones import restore_backbone

    return _embed(restore_backbone(spec, weights, allow_code=allow_code if ":" in allow_code else None), device)
