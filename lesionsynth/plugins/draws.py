"""What an edit is recorded as: every field of a draw. The string under a field is its text in the reference.

Nothing here is needed to run: the reference is generated from it, and a test holds records against it. A
name with an underscore at its end stands for the one without, which is a word of Python. Operations, sources
and blends of other packages may draw further fields.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict


class Giver(TypedDict):
    """Whose lesion it is."""

    case: str
    """Its case."""
    subject: str
    """Its person."""
    lesion: str | None
    """Its name in the bank; `null` where a compatible `carve_mix` took all of a case."""


class Removal(TypedDict):
    """An edit that removes a lesion."""

    edit: Literal["remove"]
    """What kind of edit it is."""
    lesion: int
    """Its number in the lesion map: 1 to n for the host's own, then the added ones in order."""
    seed: int
    """Of the texture."""
    texture: NotRequired[dict[str, int]]
    """How many pieces got their texture in which way. With `texture: clone`: `mirror` and `shift` (where the
    patch lies), `noise`, `none`; else 1 under `spectrum` or `noise`, or under `none` where there is no tissue
    to be like. Missing with `texture: none`."""
    filled: NotRequired[dict[str, int]]
    """Of the kinds `patch` and `mirror`: voxels by the way in which they were filled, `mirror`, `patch`,
    `trend`. Channels with different halos are filled one after another, and count each, here and above."""
    halo: NotRequired[list[int]]
    """By how many voxels more than `grow_vox` the place was grown in each channel, where it was in any: the
    lesion shone so far, as by the blur of PET."""
    volume_mm3: float
    """Volume removed."""


class Elastic(TypedDict):
    """How a lesion was bent."""

    spacing_mm: float
    """Distance of the control points."""
    control_mm: list[Any]
    """Displacement of each control point."""


class Pose(TypedDict):
    """How a lesion was turned."""

    flips: list[bool]
    """Along the world axes."""
    rotation_deg: list[float]
    """About the world axes."""
    scale: list[float]
    """Along the world axes."""
    fit: float
    """One more factor, to meet the load."""
    elastic: Elastic | None
    """The bend; `null` where there is none."""


class ContrastDraw(TypedDict):
    """How intensities were brought to the host."""

    kind: str
    """Kind used; `shell` where `host_lesions` had too few."""
    brightness: float
    """Factor on the contrast."""
    like: NotRequired[list[float]]
    """Contrast of the host's lesion that was taken as a model, per channel; of `host_lesions`."""
    noise: NotRequired[float]
    """Standard deviation of the noise, in units of the tissue's spread; where there is any."""


class BlendDraw(TypedDict, total=False):
    """What a blend has drawn; empty for blends without anything random."""

    k: float
    """Of `soft_poisson`: the share of the mask's own gradient that is kept."""
    edge: float
    """Of `self_mix`: the weight at the edge."""


class Push(TypedDict):
    """A mass effect."""

    strength: float
    """Share of the lesion's volume that was pushed aside, as far as nothing folded."""
    reach_mm: float
    """How far beyond the lesion tissue was squeezed."""


class Measures(TypedDict):
    """What was measured of an inserted lesion, before the image was painted anew where a step does that."""

    lead_channel: int
    """Where the donor stands out most, 0 the first: the one that is judged."""
    contrast: list[float | None]
    """Achieved over intended, per channel; `null` where nothing was intended, as of painted lesions."""
    edge: list[float | None]
    """The same of the gradient at its border."""
    detail: list[float | None]
    """The same of its fine texture."""
    contrast_achieved: list[float]
    """Mean minus surroundings, per channel, in the image's units."""
    contrast_kept: list[float | None]
    """Share of the change from host to lesion image that the blend has kept, per channel."""
    visible: float
    """Size of the contrast in the lead channel, in units of the spread of the host's tissue, at most 1000; of
    a lesion on its host's own texture: what it adds."""


class BankChoice(TypedDict):
    """Choice of `lesion_bank`, `lesion_warp`, `translation`, and of operations without a source."""

    lesion: str | None
    """Name in the bank; `null` where a compatible `carve_mix` took all of a case."""


class BumpChoice(TypedDict):
    """Choice of `intensity_bump`, and of `mask_library` with `intensities: bump`."""

    lesion: str
    """The shape: name in the bank."""
    contrast: list[float]
    """Mean contrast per channel, in units of the spread of the tissue."""
    smooth_mm: float
    """Width of the Gaussian."""
    from_: list[Giver]
    """Everybody's lesions that it is made of; empty where there is none."""


class MaskChoice(TypedDict):
    """Choice of `mask_library`."""

    lesion: str
    """The shape: name in the bank."""
    like: str
    """The lesion whose look it has: name in the bank."""
    seed: int
    """Of the texture."""
    from_: list[Giver]
    """Everybody's lesions that it is made of; empty where there is none."""


class LearnedChoice(TypedDict):
    """Choice of `autoencoder`, and of `translation` with `shapes: model`."""

    code: list[float]
    """Of the shape, in the latent space of the model."""
    near: str | None
    """The training lesion near which it was drawn; `null` but for `neighbourhood`."""
    volume_mm3: float
    """Volume of the shape before it was turned and scaled."""
    image_code: NotRequired[list[float]]
    """Of the intensities; with `intensities: model`."""
    image_near: NotRequired[str | None]
    """As `near`."""
    like: NotRequired[str]
    """The lesion whose look it has, with `intensities: host` or `bank`: name in the bank."""
    seed: NotRequired[int]
    """Of the texture, with these."""
    from_: list[Giver]
    """The lesion whose look it has; empty with `intensities: model`. Whom the model was trained on stands in
    `weights`."""


class Halo(TypedDict):
    """A halo or a capsule."""

    strength: float
    """Its contrast, as a share of the lesion's."""
    width_mm: float
    """Its width."""


class Core(TypedDict):
    """A core."""

    strength: float
    """Its contrast, as a share of the lesion's."""
    share: float
    """Depth at which it begins, counted from the centre, as a share of the greatest depth."""


class Look(TypedDict):
    """How a made-up lesion looks."""

    edge_mm: float
    """Width of the zone over which it fades into the tissue."""
    texture: float
    """Standard deviation of the texture, as a share of the contrast."""
    grain_mm: float
    """Coarseness of the texture."""
    halo: Halo | None
    """Oedema; `null` where there is none."""
    capsule: Halo | None
    """Rim at the border; `null` where there is none."""
    core: Core | None
    """Necrotic core; `null` where there is none."""


class EllipsoidChoice(TypedDict):
    """Choice of `ellipsoid`."""

    radii_mm: list[float]
    """Half axes."""
    spacing_mm: float
    """Voxel edge of its own grid."""
    voxels: int
    """Its volume on that grid."""
    bending: float
    """Strength of the elastic deformation, as a share of the radius."""
    class_: int
    """Label value."""
    contrast: list[float]
    """Contrast per channel, in units of the spread of the tissue."""
    look: Look
    """What was drawn of its look."""
    seed: int
    """Of shape and texture."""
    from_: list[Giver]
    """Everybody's lesions that it is made of; empty where there is none."""


class HvaeChoice(TypedDict):
    """Choice of `hvae`."""

    code: list[float]
    """Where in the latent space of the model: what is decoded."""
    near: str | None
    """The training sample near which it was drawn; `null` but for `neighbourhood`."""
    from_: list[Giver]
    """Empty, since nobody's lesion is used. Whom the model was trained on stands in `weights`."""


class Translation(TypedDict):
    """An edit that paints the whole image anew."""

    edit: Literal["translate"]
    """What kind of edit it is."""
    blend: BlendDraw
    """What the blend has drawn."""
    seed: int
    """Of the noise."""
    spared: list[int]
    """Lesions that kept their look, too pale or outside the map's tissue: numbers in the lesion map."""
    noise: float
    """Factor on the noise; 0 where the host has too little clean tissue to tell its strength."""
    contrast: dict[str, list[float]]
    """Mean minus surroundings of each lesion after that, by its number, per channel, in the image's units."""
    visible: dict[str, float]
    """The largest of these in units of the spread of the host's tissue, by the lesion's number."""
    volume_mm3: float
    """Volume painted."""


class Insertion(TypedDict):
    """An edit that adds a lesion."""

    edit: Literal["insert"]
    """What kind of edit it is."""
    source: NotRequired[str | None]
    """Source in the recipe; `null` where removed lesions come back; missing where an operation takes none."""
    donor: BankChoice | BumpChoice | MaskChoice | EllipsoidChoice | LearnedChoice | HvaeChoice
    """What the source has drawn, see [below](#choices-of-the-sources)."""
    case: str
    """Where the lesion, or its shape, comes from; empty where nobody gave it."""
    subject: str
    """The person of that case; empty where nobody gave it."""
    pose: NotRequired[Pose]
    """How it was turned, scaled and bent."""
    centre_vox: NotRequired[list[int]]
    """Voxel of the host on which the lesion's centre lies."""
    contrast: NotRequired[ContrastDraw]
    """How its intensities were brought to the host; missing with a compatible `carve_mix`."""
    blend: NotRequired[BlendDraw]
    """What the blend has drawn."""
    blur_mm: NotRequired[float]
    """Of `copy_paste`: standard deviation of the blur, 0 for none."""
    gamma: NotRequired[float]
    """Of `copy_paste`: exponent, 1 for none."""
    lambda_mm: NotRequired[float]
    """Of `carve_mix`: limit of the signed distance; such a draw has neither pose, place, blend, seed nor
    measures."""
    seed: NotRequired[int]
    """Of the noise."""
    mass_effect: NotRequired[Push]
    """Only where the lesion pushed its host aside first."""
    volume_mm3: float
    """Volume of the label written; of a `carve_mix`, of all that was carved in, parts of other lesions
    included."""
    measures: NotRequired[Measures]
    """What was measured of it."""
