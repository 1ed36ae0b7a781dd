"""The GPU, where there is one. CuPy is imported here and nowhere else."""

from __future__ import annotations


def gpu_report() -> str:
    """One line on the GPU and CuPy; never raises."""
    try:
        import cupy
    except ImportError:
        return "none (CuPy is not installed)"
    try:
        if not cupy.cuda.is_available():
            return f"none (CuPy {cupy.__version__} finds no CUDA device)"
        properties = cupy.cuda.runtime.getDeviceProperties(0)
        count = cupy.cuda.runtime.getDeviceCount()
        name = properties["name"].decode()
        return f"{count} x {name}, {properties['totalGlobalMem'] / 2**30:.0f} GiB, CuPy {cupy.__version__}"
    except Exception as error:  # a broken driver must not stop the rest of the report
        return f"unusable ({error})"
