"""Cases, lesions and banks made by hand, small enough to be checked by eye."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lesionsynth import nifti
from lesionsynth.bank.harvest import BankSpec, CaseSummary, harvest, summarise
from lesionsynth.bank.store import LesionBank, write_case, write_index
from lesionsynth.domain.case import CaseFiles, LabelTable
from lesionsynth.domain.grid import Grid, bounding_box
from lesionsynth.domain.lesion import ChannelStats, Lesion, LesionInfo, Site
from lesionsynth.domain.load import LesionLoad
from lesionsynth.host import LoadedCase
from lesionsynth.kernels.tissue import WHITE

TABLE = LabelTable(
    {"background": 0, "core": 1, "oedema": 2, "organ": 3, "other": 4},
    {
        "background": "background",
        "core": "lesion",
        "oedema": "lesion",
        "organ": "organ",
        "other": "protected",
    },
)


def make_case(
    label, images=None, *, affine=None, tissue=None, kind="mask", case="a", subject=None, table=TABLE
):
    """A loaded case from arrays; all of it is white matter and flat unless said otherwise."""
    label = np.asarray(label, np.uint16)
    grid = Grid(label.shape, np.eye(4) if affine is None else np.asarray(affine, float))
    images = [np.full(label.shape, 100.0)] if images is None else images
    tissue = np.full(label.shape, WHITE, np.uint8) if tissue is None else tissue
    files = CaseFiles(
        case, subject or case.upper(), tuple(Path(f"{n}.nii") for n in range(len(images))), Path("l.nii")
    )
    return LoadedCase(
        files,
        table,
        tuple(nifti.new(grid, np.asarray(image, np.float32)) for image in images),
        nifti.new(grid, label),
        label,
        tissue,
        kind,
    )


def make_lesion(name, subject, *, volume_mm3=100.0, classes=(1,), shape=(3, 4, 5), channels=1, seed=0):
    """A lesion with random voxels; `volume_mm3` is what its entry says."""
    rng = np.random.default_rng(seed)
    label = np.zeros(shape, np.uint16)
    label[1:-1, 1:-1, 1:-1] = rng.choice(classes, size=tuple(n - 2 for n in shape))
    stats = tuple(ChannelStats(100.0 + c, 5.0, 130.0, 7.0, 2.0) for c in range(channels))
    info = LesionInfo(
        lesion=name,
        case=name.rsplit("/", 1)[0],
        subject=subject,
        classes=tuple(classes),
        volume_mm3=volume_mm3,
        centre_vox=(4, 5, 6),
        origin_vox=(3, 3, 4),
        shape_vox=shape,
        axes_mm=(-1.0, 0, 0, 0, 2.0, 0, 0, 0, 0.5),
        channels=stats,
        site=Site("deep", 6.5, None) if channels else None,
        source_hash="abc",
    )
    image = rng.normal(size=(channels, *shape)).astype(np.float32)
    return Lesion(info, image, label, label > 0)


def make_summary(case, subject, *, shape=(12, 13, 14), affine=None, has_images=True, ml=1.0, tissue_box=None):
    """What the bank knows of a case, by hand."""
    grid = Grid(shape, np.eye(4) if affine is None else np.asarray(affine, float))
    tissue = None
    if has_images:
        tissue = np.zeros(shape, np.uint8)
        tissue[tissue_box or (slice(1, -1),) * 3] = WHITE
    return CaseSummary(
        case=case,
        subject=subject,
        grid=grid,
        load=LesionLoad(ml, 3, 50.0),
        has_images=has_images,
        tissue_kind="mask" if has_images else None,
        tissue=tissue,
        tissue_box=None if tissue is None else bounding_box(tissue > 0),
        tissue_stats=[(100.0, 5.0)] if has_images else [],
        quantiles=[[0.0, 1.0, 2.5]] if has_images else [],
        source_hashes={"x.nii.gz": "123"},
    )


def make_bank(folder, cases, about=None):
    """Bank of (summary, lesions) pairs, opened."""
    write_index(
        folder,
        sorted((write_case(folder, *case) for case in cases), key=lambda h: h.summary.case),
        about or {},
    )
    return LesionBank(folder)


def bank_of(folder, *cases, spec=None):
    """Bank harvested from loaded cases, opened."""
    spec = spec or BankSpec(min_volume_mm3=0.5, min_voxels=1)
    return make_bank(folder, [(summarise(case), harvest(case, spec)) for case in cases])
