"""Models of single lesions: train them, and open them to make new ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lesionsynth.domain.lesion import Lesion
from lesionsynth.generative.autoencoder import (
    ImageTask,
    Samples,
    Scale,
    ShapeTask,
    edge_distances,
    guide_of,
    image_networks,
    shape_networks,
)
from lesionsynth.generative.checkpoint import OF_SHAPES, TrainedOn, opened_once, read_checkpoint
from lesionsynth.generative.codes import Codes, Sampling, draw_code, fit_codes, prior_codes, trial_codes
from lesionsynth.generative.crops import Crop, shape_lesion, whole_shape
from lesionsynth.generative.lesion_data import held_out, volume_range
from lesionsynth.generative.mask_gan import GanTask, gan_networks
from lesionsynth.generative.nets import arrays_of, decoding, load_arrays
from lesionsynth.generative.specs import SPECS, AutoencoderSpec, MaskGanSpec
from lesionsynth.generative.training import SCORE, Learned, Place, Told, Trained, seed_weights, train

_LIKE_SIZE = float(np.log(3.0))
_MOST_SPREADS = 4.0
_KEPT = 8
"""Lesions that an open model keeps: one is decoded when it is drawn, and asked for again when it is made."""


def train_autoencoder(
    crops: Sequence[Crop], values: Sequence[int], spec: AutoencoderSpec, place: Place, told: Told, key: str
) -> Learned:
    """Train the shape autoencoder on all crops, and that of intensities on those that have an image."""
    scale = Scale.of([crop.edge_mm for crop in crops])
    train_on, validate_on = held_out(crops, spec.held_out, spec.seed, "shape")
    seed_weights(spec, place, "shape")
    shape = ShapeTask(
        spec,
        len(values),
        Samples(train_on, spec, scale, place.device),
        Samples(validate_on, spec, scale, place.device),
        place.device,
    )
    done = train(shape, spec, place, told, key)
    codes = fit_codes(
        shape.codes_of(shape.trained),
        np.array([crop.volume_mm3 for crop in train_on]),
        tuple(TrainedOn(name=c.name, case=c.case, subject=c.subject) for c in train_on),
        spec.seed,
    )
    about = _about(crops, values, scale)
    about["trained_on"] = [name.model_dump() for name in codes.names]
    arrays = {
        **arrays_of({f"shape.{name}": shape.networks[name] for name in ("encoder", "decoder")}),
        **codes.arrays("shape.codes/"),
    }
    made = shape.shapes_of(trial_codes(codes, "mixture", spec.seed))
    usable = [not isinstance(whole_shape(classes), str) for classes in made]
    measures = {**_measures("shape", done), "mixture_accepted": float(np.mean(usable))}
    tasks = ["shape"]
    with_image = [crop for crop in crops if crop.image.shape[0]]
    if with_image:
        tasks.append("image")
        learned = _train_images(with_image, len(values), scale, spec, place, told, key)
        about |= learned.about
        arrays |= learned.arrays
        measures |= learned.measures
    return Learned(about, arrays, measures, done.steps, tuple(tasks))


def train_mask_gan(
    crops: Sequence[Crop], values: Sequence[int], spec: MaskGanSpec, place: Place, told: Told, key: str
) -> Learned:
    """Train the Wasserstein GAN of shapes on all crops. It encodes no lesions: there is only the prior."""
    scale = Scale.of([crop.edge_mm for crop in crops])
    train_on, validate_on = held_out(crops, spec.held_out, spec.seed, "shape")
    samples = Samples(train_on, spec, scale, place.device)
    seed_weights(spec, place, "shape")
    task = GanTask(spec, len(values), scale, samples, validate_on, place.device)
    done = train(task, spec, place, told, key)
    arrays = arrays_of({"shape.decoder": task.networks["decoder"]})
    return Learned(_about(crops, values, scale), arrays, _measures("shape", done), done.steps, ("shape",))


def _about(crops: Sequence[Crop], values: Sequence[int], scale: Scale) -> dict[str, Any]:
    """What the user of a model of shapes has to know."""
    return {
        "labels": list(values),
        "channels": 0,
        "scale": [scale.mean, scale.spread],
        "volumes_mm3": list(volume_range(crops)),
    }


def _train_images(
    crops: Sequence[Crop],
    classes: int,
    scale: Scale,
    spec: AutoencoderSpec,
    place: Place,
    told: Told,
    key: str,
) -> Learned:
    parts = held_out(crops, spec.held_out, spec.seed, "image")
    inside = [np.abs(crop.image[:, crop.classes > 0]) for crop in parts[0]]
    per_channel = np.median(np.concatenate(inside, axis=1), axis=1).clip(min=0.1).astype(np.float32)
    trained, validated = (Samples(part, spec, scale, place.device, with_images=True) for part in parts)
    seed_weights(spec, place, "image")
    task = ImageTask(spec, classes, trained, validated, parts, per_channel, place.device)
    done = train(task, spec, place, told, key)
    codes = fit_codes(
        task.codes_of(),
        np.array([crop.volume_mm3 for crop in parts[0]]),
        tuple(TrainedOn(name=c.name, case=c.case, subject=c.subject) for c in parts[0]),
        spec.seed,
    )
    about = {
        "channels": len(per_channel),
        "image_trained_on": [name.model_dump() for name in codes.names],
    }
    arrays = {
        **arrays_of({f"image.{name}": task.networks[name] for name in ("encoder", "decoder")}),
        **codes.arrays("image.codes/"),
        "image.scale": per_channel,
    }
    return Learned(about, arrays, _measures("image", done), done.steps, ())


def _measures(name: str, done: Trained) -> dict[str, float]:
    found = {f"{name}_{key}": value for key, value in done.measures.items() if key != SCORE}
    found |= {f"untrained_{name}_{key}": value for key, value in done.untrained.items() if key != SCORE}
    return {**found, f"{name}_steps": float(done.steps), f"{name}_ran": float(done.ran)}


class ShapeModel:
    """Makes shapes from codes; on the CPU, in one thread, so that a draw always gives the same shape.

    Parameters
    ----------
    path : Path
        Checkpoint of a kind in :data:`checkpoint.OF_SHAPES`, see :func:`open_shapes`.
    """

    def __init__(self, path: Path) -> None:
        self.card, arrays = read_checkpoint(path, OF_SHAPES)
        self.channels = 0
        about = self.card.about
        self.values = tuple(int(v) for v in about["labels"])
        self.scale = Scale(*(float(v) for v in about["scale"]))
        low, high = about["volumes_mm3"]
        self.volumes_mm3 = (float(low), float(high))
        classes = len(self.values)
        self.spec = SPECS[self.card.kind].model_validate(self.card.config)
        if isinstance(self.spec, MaskGanSpec):
            self.codes = prior_codes(self.spec.latent)
            networks = {"shape.decoder": gan_networks(self.spec, classes)["decoder"]}
        else:
            assert isinstance(self.spec, AutoencoderSpec)
            self.codes = Codes.from_arrays("shape.codes/", arrays, about["trained_on"])
            networks = {f"shape.{name}": net for name, net in shape_networks(self.spec, classes).items()}
            self.channels = int(about["channels"])
            if self.channels:
                trained_on = about["image_trained_on"]
                self.image_codes = Codes.from_arrays("image.codes/", arrays, trained_on)
                self.image_scale = np.asarray(arrays["image.scale"], dtype=np.float32)
                made = image_networks(self.spec, classes, self.channels)
                networks |= {f"image.{name}": net for name, net in made.items()}
        load_arrays(networks, arrays)
        self._networks = {name: network.eval() for name, network in networks.items()}
        self._made: dict[tuple[float, ...], Lesion | str] = {}

    def draw_shape(
        self, sampling: Sampling, spread: float, rng: np.random.Generator, volumes_mm3: tuple[float, float]
    ) -> dict[str, Any] | None:
        """Draw a code; with `neighbourhood`, near a lesion of such a volume. None where there is none.

        Returns
        -------
        dict or None
            "code", and "near": the lesion or None.
        """
        seen = self.codes.volumes_mm3
        return _drawn(
            "",
            draw_code(self.codes, sampling, spread, rng, (seen >= volumes_mm3[0]) & (seen <= volumes_mm3[1])),
        )

    def draw_image(
        self, sampling: Sampling, spread: float, rng: np.random.Generator, volume_mm3: float
    ) -> dict[str, Any]:
        """Draw a code of intensities; with `neighbourhood`, near a lesion of like volume, or of any.

        Returns
        -------
        dict
            "image_code", and "image_near": the lesion or None.
        """
        ratio = np.abs(np.log(self.image_codes.volumes_mm3 / volume_mm3))
        like = ratio <= max(_LIKE_SIZE, float(ratio.min()))
        drawn = _drawn("image_", draw_code(self.image_codes, sampling, spread, rng, like))
        assert drawn is not None
        return drawn

    def classes(self, code: Sequence[float]) -> tuple[NDArray[np.uint8], float]:
        """Classes (n, n, n) and voxel edge in mm of a code, as the decoder gives them."""
        with decoding():
            logits, size = self._networks["shape.decoder"](torch.tensor([code], dtype=torch.float32))
        # No lesion is far larger or smaller than all that were seen, whatever the code.
        edge_mm = self.scale.edge_mm(float(np.clip(size[0].item(), -_MOST_SPREADS, _MOST_SPREADS)))
        return logits[0].argmax(0).numpy().astype(np.uint8), round(edge_mm, 4)

    def lesion(self, code: Sequence[float]) -> Lesion | str:
        """A lesion without image, or why the shape of the code is none (:func:`crops.whole_shape`)."""
        key = tuple(code)
        if key not in self._made:
            self._made[key] = self._lesion(code)
            while len(self._made) > _KEPT:
                del self._made[next(iter(self._made))]
        return self._made[key]

    def _lesion(self, code: Sequence[float]) -> Lesion | str:
        classes, edge_mm = self.classes(code)
        whole = whole_shape(classes)
        return whole if isinstance(whole, str) else shape_lesion(self.card.kind, whole, edge_mm, self.values)

    def image(self, code: Sequence[float], shape_code: Sequence[float]) -> NDArray[np.float32]:
        """Intensities (C, n, n, n) of a code for the shape of another, in units of the spread of the tissue.

        They fade over the outer half of the rim (:data:`crops.RIM_MM`), beyond which nothing was learned.
        """
        classes, edge_mm = self.classes(shape_code)
        whole = whole_shape(classes)
        assert not isinstance(whole, str)
        distances = edge_distances(whole, edge_mm)
        with decoding():
            guide = guide_of(
                torch.from_numpy(whole[None]),
                torch.tensor([self.scale.size(edge_mm)], dtype=torch.float32),
                torch.from_numpy(distances[None]),
                len(self.values) + 1,
            )
            found = self._networks["image.decoder"](torch.tensor([code], dtype=torch.float32), guide)
        fade = np.clip(2.0 * (1.0 - distances), 0.0, 1.0)
        return np.asarray(found[0].numpy() * self.image_scale[:, None, None, None] * fade)


def _drawn(prefix: str, drawn: tuple[list[float], TrainedOn | None] | None) -> dict[str, Any] | None:
    if drawn is None:
        return None
    code, near = drawn
    return {f"{prefix}code": code, f"{prefix}near": None if near is None else near.name}


open_shapes = opened_once(ShapeModel)
"""The model of a checkpoint; a process reads it once."""
