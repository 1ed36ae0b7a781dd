"""Open a trained translation, and paint lesions with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from numpy.typing import NDArray

from lesionsynth.domain.grid import Box, grown
from lesionsynth.errors import InputError
from lesionsynth.generative.checkpoint import opened_once, read_checkpoint
from lesionsynth.generative.nets import decoding, load_arrays, one_hot
from lesionsynth.generative.specs import TranslationSpec
from lesionsynth.generative.tissue_map import Frame, Semantics, Window
from lesionsynth.generative.translation_data import patch_shape
from lesionsynth.generative.translation_nets import generator
from lesionsynth.host import LoadedCase

_OVERLAP = 0.5
"""Of windows: with 0.25 their edges can be seen as faint lines in white matter."""
_AT_ONCE = 2
"""Windows painted together: one alone takes torch up to eight times as long in one thread (SPADE)."""


class Translator:
    """Makes images of semantic maps; on the CPU, in one thread, so that a map always gives the same image.

    Parameters
    ----------
    path : Path
        Checkpoint of the kind translation, see :func:`open_translation`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.card, arrays = read_checkpoint(path, ("translation",))
        about = self.card.about
        self.semantics = Semantics.from_about(about)
        self.channels = int(about["channels"])
        self.spacing_mm = float(about["spacing_mm"])
        self.spec = TranslationSpec.model_validate(self.card.config)
        self.ranges = np.asarray(arrays["ranges"], dtype=np.float32).reshape(self.channels, 1, 1, 1)
        self._network = generator(self.spec, self.semantics.count, self.channels)
        load_arrays({"generator": self._network}, arrays)
        self._network.eval()

    def _require(self, case: LoadedCase) -> None:
        for what, own, other in (
            ("channels", self.channels, len(case.images)),
            ("lesion labels", self.semantics.lesions, case.labels.lesion),
        ):
            if own != other:
                raise InputError(
                    f"the model was trained on {what} {own}; the case has {other}.",
                    case=case.files.case,
                    file=self.path,
                    remedy="Give a model that was trained on this data set.",
                )

    def tissue_of(self, case: LoadedCase, cache: dict[Any, Any]) -> NDArray[np.uint8]:
        """Classes of the tissue of a case that this model can translate; `cache` keeps them.

        Raises
        ------
        InputError
            If the case has other channels or lesions than those trained on, or its label image is amiss.
        """
        key = ("tissue classes", self.path, case.files.case)
        if key not in cache:
            self._require(case)
            cache[key] = self.semantics.tissue_of(case)
        tissue: NDArray[np.uint8] = cache[key]
        return tissue

    def image(self, classes: NDArray[np.uint8], skip: bool = False) -> NDArray[np.float32]:
        """Image of a semantic map on the network's grid, by windows that overlap by half.

        Parameters
        ----------
        classes : ndarray, (i, j, k), uint8
            Axes along the world's (RAS+).
        skip : bool
            Whether windows without any tissue become 0, unseen.

        Returns
        -------
        ndarray, (C, i, j, k), float32
            Difference from the tissue's median, in units of its spread.
        """
        sizes = classes.shape
        short = [max(0, p - n) for p, n in zip(patch_shape(self.spec), sizes, strict=True)]
        whole = torch.from_numpy(np.pad(classes, [(s // 2, s - s // 2) for s in short])).float()
        # Slices are a batch. Windows are made one-hot when they are painted: a whole brain has many classes.
        batch = whole.movedim(-1, 0)[:, None] if self.spec.spatial_dims == 2 else whole[None, None]

        def network(part: torch.Tensor) -> torch.Tensor:
            painted = part.new_zeros((len(part), self.channels, *part.shape[2:]))
            seen = part.flatten(1).any(1) if skip else torch.ones(len(part), dtype=torch.bool)
            if seen.any():
                painted[seen] = self._network(one_hot(part[seen, 0], self.semantics.count))
            return painted

        window = [self.spec.patch] * self.spec.spatial_dims
        with decoding():
            found = sliding_window_inference(
                batch, window, _AT_ONCE, network, overlap=_OVERLAP, mode="gaussian"
            )
        if self.spec.spatial_dims == 2:
            found = found.movedim(0, -1)[None]
        part = tuple(slice(s // 2, s // 2 + n) for s, n in zip(short, sizes, strict=True))
        return np.asarray(found[0].numpy()[(slice(None), *part)] * self.ranges)

    def added(
        self,
        case: LoadedCase,
        tissue: NDArray[np.uint8],
        label: NDArray[np.unsignedinteger],
        box: Box,
        lesion: NDArray[np.unsignedinteger],
    ) -> NDArray[np.float32]:
        """What a lesion adds to its host: the image of the host's map with it less that without it.

        Parameters
        ----------
        case : LoadedCase
        tissue : ndarray, (i, j, k), uint8
            Its tissue, from :meth:`Semantics.tissue_of`.
        label : ndarray, (i, j, k)
            Its present label map, without the lesion.
        box : Box
            Where the lesion lies, with a margin.
        lesion : ndarray, of the shape of the box
            Label values of the lesion.

        Returns
        -------
        ndarray, (C, *box), float32
            In units of the spread of the tissue.
        """
        frame, window, around = self._view(case, box)
        before = self.semantics.with_lesions(tissue[around], label[around])
        after = before.copy()
        inner = tuple(slice(b.start - a.start, b.stop - a.start) for a, b in zip(around, box, strict=True))
        after[inner] = self.semantics.with_lesions(before[inner], lesion)
        made = [self.image(frame.classes(classes, around, window)) for classes in (after, before)]
        return frame.back(made[0] - made[1], window, box)

    def translated(self, case: LoadedCase, classes: NDArray[np.uint8], box: Box) -> NDArray[np.float32]:
        """Image of the semantic map of a case, (C, *box).

        Parameters
        ----------
        case : LoadedCase
        classes : ndarray, (i, j, k), uint8
            Its tissue with its lesions, from :meth:`Semantics.with_lesions`.
        box : Box

        Returns
        -------
        ndarray, (C, *box), float32
            Difference from the tissue's median, in units of its spread.
        """
        frame, window, around = self._view(case, box)
        image = self.image(frame.classes(classes[around], around, window), skip=True)
        return frame.back(image, window, box)

    def _view(self, case: LoadedCase, box: Box) -> tuple[Frame, Window, Box]:
        """The network's grid over a case, its window on a box, and what that window looks at."""
        frame = Frame.of(case.grid, self.spacing_mm, self.spec.spatial_dims)
        window = frame.window(box).at_least(patch_shape(self.spec))
        return frame, window, grown(frame.box(window, case.grid.shape), (1, 1, 1), case.grid.shape)


open_translation = opened_once(Translator)
"""The translation of a checkpoint; a process reads it once."""
