"""The part of a preprocess that decides how a file is decoded, before anything is resized."""

from __future__ import annotations

import math
from dataclasses import dataclass

from featx.errors import UnknownNameError, UsageError
from featx.spec import FeatureRequest, Preprocess

NVJPEG = "nvjpeg"
DECODERS = {
    "pillow": "every pixel of the file",
    "pillow-draft": "JPEGs at 1/2, 1/4 or 1/8 of their size, where that is still twice what the resize needs",
    NVJPEG: "JPEGs on an NVIDIA GPU, whose last bits are others; other files as by pillow",
}
"""Values of `Preprocess.decoder`."""


@dataclass(frozen=True)
class Reading:
    """How files become RGB; two specs of the same reading can share one decode.

    Attributes
    ----------
    window, percentiles, bands
        As in `featx.spec.Preprocess`.
    draft : tuple of int
        The `Preprocess.resize` for which JPEGs may be decoded at a reduced scale; empty: never.

    Raises
    ------
    UsageError
        If the window is not LO < HI, the percentiles not 0 <= LO < HI <= 100, both are given, or the bands are not
        one or three numbers from 1 on.
    """

    window: tuple[float, float] | None = None
    percentiles: tuple[float, float] | None = None
    bands: tuple[int, ...] = ()
    draft: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.window is not None and not -math.inf < self.window[0] < self.window[1] < math.inf:
            raise UsageError(f"the window needs LO < HI, got {self.window[0]:g},{self.window[1]:g}")
        if self.percentiles is not None:
            low, high = self.percentiles
            if not 0 <= low < high <= 100:
                raise UsageError(f"the percentiles need 0 <= LO < HI <= 100, got {low:g},{high:g}")
            if self.window is not None:
                raise UsageError("grey values are mapped by a window or by percentiles, not by both")
        if self.bands and (len(self.bands) not in (1, 3) or min(self.bands) < 1):
            given = ",".join(map(str, self.bands))
            raise UsageError(f"the bands need one number, or three for red, green and blue, from 1 on; got {given}")

    @classmethod
    def of(cls, preprocess: Preprocess) -> Reading:
        """Return what of a preprocess concerns the decoding.

        Raises
        ------
        UnknownNameError
            If there is no such decoder.
        UsageError
            As the class.
        """
        _check_decoder(preprocess.decoder)
        draft = preprocess.resize if preprocess.decoder == "pillow-draft" else ()
        return cls(preprocess.window, preprocess.percentiles, preprocess.bands, draft)

    @classmethod
    def check(cls, request: FeatureRequest) -> None:
        """Raise what `of` will raise for the preprocess of a request, before anything is loaded for it."""
        _check_decoder(request.decoder)
        cls(request.window, request.percentiles, request.bands)

    @property
    def stretches(self) -> bool:
        """Whether the user has said which values become black and white."""
        return self.window is not None or self.percentiles is not None


def _check_decoder(name: str) -> None:
    if name not in DECODERS:
        raise UnknownNameError("decoder", name, DECODERS)


@dataclass(frozen=True)
class ImageFacts:
    """What a file said about its image.

    Attributes
    ----------
    format, mode : str
        Pillow's names (``"JPEG"``, ``"RGB"``); of a DICOM file ``"DICOM"`` and its photometric interpretation, of a
        TIFF that Pillow does not read its numbers and bands (``"uint16 x 8"``).
    width, height : int
        Pixels, as stored: before EXIF orientation (TIFF: after it).
    """

    format: str
    mode: str
    width: int
    height: int
