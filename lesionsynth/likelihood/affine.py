"""Affine registration onto a reference image (SimpleITK), for cohorts without a common grid."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesionsynth import nifti
from lesionsynth.errors import InputError
from lesionsynth.kernels.tissue import without_padding

_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_BINS = 32
_SAMPLING = 0.2
_SEED = 20260


def register(moving: nifti.Image, reference: nifti.Image) -> NDArray[np.float64]:
    """Affine transform from the reference's world to the moving image's world.

    Parameters
    ----------
    moving, reference : nifti.Image
        3-D images of any grid.

    Returns
    -------
    ndarray, (4, 4), float64
        Maps RAS+ millimetres of the reference to RAS+ millimetres of the moving image. Mattes mutual
        information, three resolutions, one thread and a fixed sampling seed: the same on every run.

    Raises
    ------
    InputError
        If the images cannot be registered, such as an empty or a single-slice one.

    References
    ----------
    Mattes et al., IEEE TMI 2003, doi:10.1109/TMI.2003.809072.
    """
    import SimpleITK as sitk

    fixed, floating = _to_itk(reference), _to_itk(moving)
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)
    method.SetMetricAsMattesMutualInformation(_BINS)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(_SAMPLING, _SEED)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=1.0, minStep=1e-3, numberOfIterations=150, relaxationFactor=0.6
    )
    method.SetOptimizerScalesFromPhysicalShift()
    smallest = min(*reference.grid.shape, *moving.grid.shape)
    factors = [f for f in (4, 2, 1) if smallest >= 4 * f] or [1]
    method.SetShrinkFactorsPerLevel(factors)
    method.SetSmoothingSigmasPerLevel([float(f - 1) for f in factors])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOff()
    threads = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)  # the order of a sum is a matter of threads
    try:
        method.SetInitialTransform(
            sitk.CenteredTransformInitializer(
                fixed, floating, sitk.AffineTransform(3), sitk.CenteredTransformInitializerFilter.MOMENTS
            )
        )
        found = method.Execute(fixed, floating)
    except RuntimeError as error:
        raise InputError(
            f"cannot be registered onto {reference.path}: {str(error).strip().splitlines()[-1]}",
            file=moving.path,
            remedy="Choose another `likelihood.reference` or `likelihood.channel`, or kind organ.",
        ) from None
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    return _LPS @ _matrix_of(found) @ _LPS


def _to_itk(image: nifti.Image) -> Any:
    import SimpleITK as sitk

    values = image.values()
    known = np.isfinite(values)
    if not known.any():
        raise InputError("has no voxel with a number.", file=image.path)
    # With NaN the optimizer would never end.
    values = without_padding(np.where(known, values, values[known].min()))
    # Centres of mass need masses: air is -1024 in CT.
    itk = sitk.GetImageFromArray(np.ascontiguousarray((values - values.min()).T))
    affine = _LPS @ image.grid.affine
    spacing = np.array(image.grid.spacing_mm)
    itk.SetSpacing(spacing.tolist())
    itk.SetOrigin(affine[:3, 3].tolist())
    # Directions must be orthonormal for ITK; a sheared affine is replaced by the nearest rotation.
    u, _, vt = np.linalg.svd(affine[:3, :3] / spacing)
    itk.SetDirection((u @ vt).ravel().tolist())
    return itk


def _matrix_of(transform: Any) -> NDArray[np.float64]:
    """4x4 matrix of an affine ITK transform, probed at four points so that its kind does not matter."""
    origin = np.array(transform.TransformPoint((0.0, 0.0, 0.0)))
    columns = [np.array(transform.TransformPoint(tuple(row))) - origin for row in np.eye(3)]
    matrix = np.eye(4)
    matrix[:3, :3] = np.stack(columns, axis=1)
    matrix[:3, 3] = origin
    return matrix
