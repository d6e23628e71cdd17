"""The differentiable FSC on a GPU is that of plain float64 NumPy."""

import numpy as np
from on_gpu import cpu_and_gpu, result_on
from reference import spectra as slow

from crefjax.spectral.fsc import fsc
from crefjax.spectral.shells import box_shells


def test_fsc_on_a_gpu_matches_numpy():
    _, gpu = cpu_and_gpu()
    random = np.random.default_rng(0)
    signal = random.standard_normal((32, 40, 48))
    first, second = ((signal + random.standard_normal(signal.shape) + 5).astype(np.float32) for _ in range(2))
    found = result_on(gpu, lambda a, b: fsc(a, b, box_shells(a.shape)), first, second)
    np.testing.assert_allclose(found, slow.fsc(first, second), atol=1e-5)
