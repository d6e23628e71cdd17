"""Factors per shell that put a denoised map back on the signal's scale, from half-maps alone.

An FSC loss leaves the scale of every shell of a network's output free. The correct scale can be estimated from the
half-maps alone, because one half-map and the denoised version of the other share signal but no noise. With the full
map `F = S + N_F`, the mean of the half-maps, and the network's output D for it, the result in each shell is
`a D + b F`, the least-squares estimate of S. It needs, besides covariances that are measured directly:

- `cov(F, S) = var(F) - var(N_F)`, `var(N_F)` being a quarter of the power of `M1 - M2`;
- `cov(D, S)`. For the mean of the denoised half-maps it is `(cov(M1,D2) + cov(M2,D1)) / 2`, exactly; D has a little
  more of the signal. Where noise is weak, `cov(D, F) - cov(D, N_F)` is used, with the noise that passes the
  network, `cov(D, N_F)`, taken from the half-maps too (half of `cov(M1,D1) - cov(M1,D2)`): only a small
  correction is uncertain there. Where noise is strong, a network treats the noisier half-maps differently from the full
  map; there D is taken to correlate with the signal as the mean of the denoised half-maps does.

Estimates scatter, and shells of pure noise would get factors of either sign. Factors are therefore never negative, and
one that noise could explain is drawn towards those of its neighbors, on a logarithmic scale. The contribution of the
full map is used where it exceeds its error. Where this cannot be decided, because full map and output are alike, the
full map is used in shells where its signal is at least a hundred times its noise, the network in others. The mean of
the map is the full map's.
"""

from dataclasses import dataclass

import numpy as np
import scipy.fft
from scipy.special import log_ndtr

from crefjax.spectral.covariances import Covariances, smooth_over_shells
from crefjax.spectral.shells import filtered_spectrum

# Noise density and the share of it that passes change little over this many shells (standard deviation of a Gaussian).
_NOISE_WIDTH = 1.5
# Width over which factors of uncertain shells are averaged, and the relative error above which a shell is uncertain.
_FACTOR_WIDTH, _CERTAIN = 3.0, 0.05
# Signal to noise of the full map beyond which the weak-noise estimate of cov(D, S) has more weight than the other.
_WEAK_NOISE = 10.0
# Prior of b: signal to noise of the full map at which it is a half, its standard deviation, and the relative error of
# cov(D, S) that the assumptions above leave. Found on simulated pairs; half or twice of each changes little.
_PRIOR_RATIO, _PRIOR_STD, _SYSTEMATIC = 100.0, 0.3, 0.02
# Below the first of these signal-to-noise ratios the full map adds nothing; above the second it is not attenuated.
_ADDS_NOTHING, _ADDS = 0.1, 0.5
# In place of 0, so that products of four such powers are still float64 numbers.
_LEAST_POWER = 1e-60


@dataclass(frozen=True)
class Calibration:
    """Factors per shell, `(shells,)`, float64, not negative.

    Attributes:
        network: for the network's output.
        full: for the full map.
    """

    network: np.ndarray
    full: np.ndarray


def calibrate(covariances: Covariances) -> Calibration:
    """Estimate the factors for a network's output and the full map.

    Args:
        covariances: of half-map 1, half-map 2, denoised 1, denoised 2 and the denoised full map, in that order, masked;
            all denoised from maps standardized by the same two numbers, not rescaled, and relative to their solvent
            levels.
    """
    m = _moments(covariances)
    signal_in_network = _signal_in_network(m)
    b = _share_of_full(m, signal_in_network)
    alone = _network_alone(m, signal_in_network)
    a = np.maximum(alone - b * m.network_full / m.network, 0)
    a[0], b[0] = 0.0, 1.0
    return Calibration(a, b)


def apply_calibration(
    network: np.ndarray, full: np.ndarray, calibration: Calibration, *, corners: bool = False
) -> np.ndarray:
    """Return the sum of both maps, each times the factors of its shells, without voxels beyond the last shell.

    Args:
        network: `(z, y, x)`, float32, relative to its solvent level.
        full: the same shape, relative to its own.
        calibration: of that box.
        corners: whether voxels beyond the last shell are kept, with the factors of the last but one (those of Nyquist
            rest on few voxels): on a coarser grid than the map's they belong to shells that the map has.

    Returns:
        `(z, y, x)`, float32.
    """
    total, added = (
        filtered_spectrum(array, factors, beyond=factors[-2] if corners else 0.0)
        for array, factors in ((network, calibration.network), (full, calibration.full))
    )
    total += added
    return scipy.fft.irfftn(total, s=full.shape, workers=-1, overwrite_x=True)


@dataclass(frozen=True)
class _Moments:
    """Moments per shell; see the module's docstring.

    Attributes:
        dof: independent numbers, 0 in shell 0.
        signal: covariance of the half-maps.
        noise: of a half-map, as measured in the shell.
        full_noise: var(N_F), smoothed over shells.
        full_noise_dof: independent numbers that it rests on.
        passed: cov(D, N_F), smoothed over shells.
        cross: covariance of one half-map and the denoised other half-map.
        common: covariance of the denoised half-maps.
        residual: noise of a denoised half-map.
        network: var(D).
        full: var(F).
        network_full: cov(D, F).
        scale: standard deviation of D over that of the mean of the denoised half-maps.
    """

    dof: np.ndarray
    signal: np.ndarray
    noise: np.ndarray
    full_noise: np.ndarray
    full_noise_dof: np.ndarray
    passed: np.ndarray
    cross: np.ndarray
    common: np.ndarray
    residual: np.ndarray
    network: np.ndarray
    full: np.ndarray
    network_full: np.ndarray
    scale: np.ndarray

    @property
    def ratio(self):
        """Return the signal-to-noise ratio of the full map."""
        return np.maximum(self.full - self.full_noise, 0) / self.full_noise

    @property
    def error(self):
        """Return the standard deviation of `scale * cross`."""
        signal = np.maximum(self.signal, 0)
        pure = (np.maximum(self.common, 0) + self.network) * self.noise / 2 + signal * self.residual / 2
        return self.scale * np.sqrt(pure / np.maximum(self.dof, 1))


def _moments(covariances):
    s = covariances.matrix
    # A shell without power, in a band-limited or constant map, must not divide by zero.
    floor = max(1e-30 * float(np.max(s[:, 0, 0])), _LEAST_POWER)
    dof = covariances.dof.copy()
    dof[0] = 0
    cross = (s[:, 0, 3] + s[:, 1, 2]) / 2
    signal = s[:, 0, 1]
    noise = np.maximum((s[:, 0, 0] + s[:, 1, 1]) / 2 - signal, floor)
    through = (s[:, 0, 2] + s[:, 1, 3]) / 2 - cross
    network = np.maximum(s[:, 4, 4], max(1e-30 * float(np.max(s[:, 4, 4])), _LEAST_POWER))
    of_mean = (s[:, 2, 2] + s[:, 3, 3] + 2 * s[:, 2, 3]) / 4
    scale = np.sqrt(network / np.maximum(of_mean, 1e-12 * network))
    full_noise, full_noise_dof = smooth_over_shells(noise / 2, dof, _NOISE_WIDTH)
    share, _ = smooth_over_shells(scale * through / noise, dof, _NOISE_WIDTH)
    return _Moments(
        dof=dof,
        signal=signal,
        noise=noise,
        full_noise=full_noise,
        full_noise_dof=np.maximum(full_noise_dof, 1),
        passed=share * full_noise,
        cross=cross,
        common=s[:, 2, 3],
        residual=np.maximum((s[:, 2, 2] + s[:, 3, 3]) / 2 - s[:, 2, 3], 0),
        network=network,
        full=np.maximum((s[:, 0, 0] + s[:, 1, 1] + 2 * signal) / 4, floor),
        network_full=(s[:, 0, 4] + s[:, 1, 4]) / 2,
        scale=scale,
    )


def _signal_in_network(m):
    """Return cov(D, S), within the bound of var(D) and var(S)."""
    weak = m.ratio / (m.ratio + _WEAK_NOISE)
    estimate = weak * (m.network_full - m.passed) + (1 - weak) * m.scale * m.cross
    limit = np.sqrt(m.network * np.maximum(m.full - m.full_noise, 0))
    return np.clip(estimate, -limit, limit)


def _share_of_full(m, signal_in_network):
    """Return b by the noise to subtract, S = F - N_F: not a small difference of large numbers."""
    passed = m.network_full - signal_in_network
    determinant = np.maximum(m.network * m.full - m.network_full**2, 1e-7 * m.network * m.full)
    b = 1 - (m.full_noise * m.network - passed * m.network_full) / determinant
    noise_error = m.full_noise * np.sqrt(2 / m.full_noise_dof)
    passed_error = np.sqrt((m.network * m.full_noise + passed**2) / m.full_noise_dof)
    variance = (m.network * noise_error) ** 2 + (m.network_full * passed_error) ** 2
    variance = (variance + (m.network_full * _SYSTEMATIC * signal_in_network) ** 2) / determinant**2
    prior = m.ratio / (m.ratio + _PRIOR_RATIO)
    b = np.clip((b * _PRIOR_STD**2 + prior * variance) / (_PRIOR_STD**2 + variance), 0, 1)
    return b * np.clip((m.ratio - _ADDS_NOTHING) / (_ADDS - _ADDS_NOTHING), 0, 1)


def _network_alone(m, signal_in_network):
    """Return the factor of D if b were 0: cov(D, S) / var(D), as a share, at most 1, of cov(D, F) / var(D)."""
    size = np.sqrt(m.network * m.full)
    correlated = size * _smooth_uncertain(_positive(m.network_full, m.error) / size, m.error / size)
    share = _smooth_uncertain(_positive(signal_in_network, m.error) / correlated, m.error / correlated)
    return correlated * np.minimum(share, 1) / m.network


def _smooth_uncertain(values, errors):
    """Draw uncertain positive values towards their neighbors in the logarithm, except shell 0."""
    log, relative = np.log(values[1:]), (errors / values)[1:]
    around, _ = smooth_over_shells(log, 1 / (relative**2 + 1e-6), _FACTOR_WIDTH)
    weight = relative**2 / (relative**2 + _CERTAIN**2)
    return np.concatenate([values[:1], np.exp(log + weight * (around - log))])


def _positive(values, errors):
    """Return the means of normal distributions with these means and standard deviations, truncated below 0."""
    errors = np.maximum(errors, 1e-12 * np.abs(values) + 1e-300)
    z = values / errors
    # Far below 0 the two terms cancel; their series gives -1 / z.
    tail = np.exp(-(z**2) / 2 - log_ndtr(z)) / np.sqrt(2 * np.pi)
    return errors * np.where(z > -8, np.maximum(z + tail, 1e-12), -1 / np.minimum(z, -8))
