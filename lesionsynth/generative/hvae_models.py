"""Models of images with their lesion masks: train one, and open it to make new pairs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lesionsynth.domain.case import LabelTable
from lesionsynth.generative.checkpoint import opened_once, read_checkpoint
from lesionsynth.generative.codes import SAMPLINGS, Codes, Sampling, fit_codes, trial_codes
from lesionsynth.generative.crops import MOST_SPREADS, largest_shape
from lesionsynth.generative.hvae import Batches, HvaeTask, networks_of
from lesionsynth.generative.lesion_data import held_out
from lesionsynth.generative.nets import arrays_of, decoding, load_arrays
from lesionsynth.generative.samples import Samples, Seen, component_sizes
from lesionsynth.generative.specs import HvaeSpec
from lesionsynth.generative.training import SCORE, Learned, Place, Told, seed_weights, train


def train_hvae(
    samples: Samples, labels: LabelTable, spec: HvaeSpec, place: Place, told: Told, key: str
) -> Learned:
    """Train on the samples of all but some subjects, and fit where codes of new samples are drawn.

    Codes are kept of the training samples that lie on a lesion and show some of it.
    """
    values = labels.lesion
    train_on, validate_on = held_out(samples.parts, spec.held_out, spec.seed, "hvae")
    images = np.stack([s.image for s in train_on])
    scale = images.std(axis=(0, *range(2, images.ndim)), dtype=np.float64).clip(min=0.1).astype(np.float32)
    del images  # as large as all samples
    trained, validated = (Batches(part, scale, place.device) for part in (train_on, validate_on))
    seed_weights(spec, place, "hvae")
    task = HvaeTask(spec, len(values), trained, validated, place.device)
    seen = Seen.of(samples.parts, samples.spacing_mm)
    done = train(task, spec, place, told, key)
    on_lesion = [k for k, s in enumerate(train_on) if s.on_lesion and (s.classes > 0).any()]
    if not on_lesion:
        on_lesion = [k for k, s in enumerate(train_on) if (s.classes > 0).any()]
    codes = fit_codes(
        task.codes_of(trained)[on_lesion],
        np.array([largest_mm3(train_on[k].classes, samples.spacing_mm) for k in on_lesion]),
        tuple(train_on[k].about for k in on_lesion),
        spec.seed,
    )
    about: dict[str, Any] = {
        "labels": list(values),
        "label_values": dict(labels.values),
        "label_roles": dict(labels.roles),
        "channels": len(scale),
        "spacing_mm": samples.spacing_mm,
        "tissue": [list(channel) for channel in samples.tissue],
        "volumes_mm3": list(vars(seen).values()),
        "trained_on": [name.model_dump() for name in codes.names],
    }
    arrays = {**arrays_of(task.networks), **codes.arrays("codes/"), "scale": scale}
    measures = {
        **{name: value for name, value in done.measures.items() if name != SCORE},
        "samples": float(len(train_on)),
        "held_out": float(len(validate_on)),
        "ran": float(done.ran),
    }
    model = HvaeModel(spec, about, arrays)
    measures |= {f"{sampling}_accepted": accepted(model, sampling) for sampling in SAMPLINGS}
    return Learned(about, arrays, measures, done.steps, (task.name,))


def largest_mm3(classes: NDArray[np.uint8], spacing_mm: float) -> float:
    """Volume of the largest lesion of a sample; 0 where it has none."""
    return float(component_sizes(classes).max(initial=0)) * spacing_mm**3


def accepted(model: HvaeModel, sampling: Sampling) -> float:
    """Share of some draws that are usable."""
    masks = [model.pair(code)[1] for code in trial_codes(model.codes, sampling, model.spec.seed)]
    test = model.largest if model.spec.sample == "patches" else model.refusal
    return float(np.mean([not isinstance(test(classes), str) for classes in masks]))


class HvaeModel:
    """Makes images with their masks from codes; on the CPU, in one thread: a code always gives the same pair.

    Parameters
    ----------
    spec : HvaeSpec
        It was trained with.
    about : dict
        Of its card.
    arrays : dict of str to ndarray
        Of its checkpoint.

    Raises
    ------
    KeyError, TypeError, ValueError, RuntimeError, ValidationError
        If they are not those of such a model.
    """

    def __init__(self, spec: HvaeSpec, about: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
        self.spec = spec
        self.values = tuple(int(v) for v in about["labels"])
        self.channels = int(about["channels"])
        self.spacing_mm = float(about["spacing_mm"])
        self.tissue = np.array(about["tissue"], dtype=np.float64).reshape(self.channels, 3)
        self.seen = Seen(*(float(v) for v in about["volumes_mm3"]))
        self.codes = Codes.from_arrays("codes/", arrays, about["trained_on"])
        self.scale = np.asarray(arrays["scale"], np.float32).reshape(self.channels, *[1] * spec.dims)
        networks = networks_of(spec, len(self.values), self.channels)
        load_arrays(networks, arrays)
        self._decoder = networks["decoder"].eval()

    def pair(self, code: Sequence[float]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Image (C, n, n[, n]) and classes (n, n[, n]) of a code.

        The image is the difference from the median of the tissue, in units of the tissue's spread.
        """
        with decoding():
            mean, logits = self._decoder(torch.tensor([code], dtype=torch.float32))
        return np.asarray(mean[0].numpy() * self.scale), logits[0].argmax(0).numpy().astype(np.uint8)

    def refusal(self, classes: NDArray[np.uint8]) -> str | None:
        """Why a mask is none, or None where it is one."""
        return self.seen.refusal(classes, self.spacing_mm)

    def largest(self, classes: NDArray[np.uint8]) -> NDArray[np.uint8] | str:
        """The largest lesion of the mask of a patch, which is what a source takes, or why it is none."""
        return self.refusal(classes) or largest_shape(classes)

    def is_tissue(self, image: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Where an image (C, n, ...) is nearer to tissue than to the least intensity, in every channel."""
        median, spread, least = self.tissue.T
        half = 0.5 * np.maximum((least - median) / np.where(spread > 0, spread, 1.0), -MOST_SPREADS)
        return np.asarray((image > half.reshape(-1, *[1] * self.spec.dims)).all(axis=0))

    def in_units(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """An image in the units of the training cases, not below their least intensity."""
        shape = (self.channels, *[1] * self.spec.dims)
        median, spread, least = (column.reshape(shape) for column in self.tissue.T)
        return np.maximum(median + spread * image, least).astype(np.float32)


def _read(path: Path) -> HvaeModel:
    card, arrays = read_checkpoint(path, ("hvae",))
    return HvaeModel(HvaeSpec.model_validate(card.config), card.about, arrays)


open_hvae = opened_once(_read)
"""The model of a checkpoint; a process reads it once."""
