"""The evidence that two maps show the same specimen, against sums over every Fourier coefficient."""

import numpy as np
import pytest

from crefjax.data.alignment import Evidence


def slow_evidence(first, second, mask):
    """`-1/2 n log(1 - FSC²)` summed over shells, from the full transform of a cube."""
    side = len(first)
    f1, f2 = (np.fft.fftn(np.float64(array) * mask) for array in (first, second))
    sums = {}
    for at in np.ndindex(f1.shape):
        line = [index if index <= side // 2 else index - side for index in at]
        shell = int(np.floor(np.sqrt(sum(index**2 for index in line)) + 0.5))
        if 1 <= shell <= side // 2:
            cross, power_1, power_2, voxels = sums.get(shell, (0, 0, 0, 0))
            cross += (f1[at] * np.conj(f2[at])).real
            sums[shell] = cross, power_1 + abs(f1[at]) ** 2, power_2 + abs(f2[at]) ** 2, voxels + 1
    total = 0.0
    for cross, power_1, power_2, voxels in sums.values():
        fsc = max(cross / np.sqrt(power_1 * power_2), 0)
        total -= 0.5 * voxels / 2 * np.mean(np.square(mask)) * np.log(1 - fsc**2)
    return total


@pytest.mark.parametrize("noise", [0.3, 1.0, 3.0])
def test_the_evidence_is_a_sum_over_shells_of_independent_numbers(noise):
    random = np.random.default_rng(3)
    signal, mask = random.standard_normal((12, 12, 12)), random.random((12, 12, 12))
    first, second = ((signal + noise * random.standard_normal(signal.shape)).astype(np.float32) for _ in range(2))
    measure = Evidence(first, mask.astype(np.float32))
    assert measure(second) == pytest.approx(slow_evidence(first, second, mask), rel=1e-4)
    assert measure(-second) < measure(second)
