"""The losses in plain float64 NumPy, shell by shell on whole complex spectra, straight from their formulas."""

import numpy as np


def shells_of(shape):
    """For every shell from 0 to N // 2 where its voxels are in the whole spectrum."""
    longest = max(shape)
    radius = np.zeros(shape)
    for axis, side in enumerate(shape):
        frequency = np.fft.fftfreq(side) * longest
        radius = radius + frequency.reshape([-1 if a == axis else 1 for a in range(3)]) ** 2
    nearest = np.floor(np.sqrt(radius) + 0.5)
    return [nearest == shell for shell in range(longest // 2 + 1)]


def cov(a, b):
    """Per shell the mean of Re FA conj(FB)."""
    fa, fb = (np.fft.fftn(np.asarray(map_, np.float64)) for map_ in (a, b))
    return np.array([np.mean((fa[shell] * np.conj(fb[shell])).real) for shell in shells_of(a.shape)])


def fsc(a, b):
    return cov(a, b) / np.sqrt(cov(a, a) * cov(b, b))


def c_ref(m1, m2):
    half = fsc(m1, m2)
    return np.array([np.sqrt(2 * h / (1 + h)) if h > 0 else 0.0 for h in half])


def over_shells(curve):
    """Mean over shells 1 to N // 2 - 1."""
    return sum(curve[1:-1]) / (len(curve) - 2)


def cref_l1(d, m1, m2, target=None):
    """With C_ref of the half-maps, or a target given."""
    target = c_ref(m1, m2) if target is None else target
    return over_shells(np.abs(target - fsc(d, (m1 + m2) / 2)))


def within(map_, mask):
    """Times a mask, once the mean outside it is taken away; nothing is where all but a thousandth is inside."""
    outside = 1 - mask.astype(float)
    enough = np.mean(outside) >= 1e-3
    return (map_ - (np.average(map_, weights=outside) if enough else 0)) * mask


def cref_l1_masked(d, m1, m2, mask):
    return cref_l1(*(within(map_, mask) for map_ in (d, m1, m2)))


def gain_l1(d, m1, m2):
    full = (m1 + m2) / 2
    power = cov(full, full)
    power = power + 1e-3 * np.mean(power)
    return np.mean(np.abs(cov(d, full) - cov(m1, m2))[:-1] / power[:-1])


def cref_rmse(d, m1, m2):
    curve = fsc(d, (m1 + m2) / 2)
    return np.sqrt(over_shells((np.sign(curve) * curve**2 - c_ref(m1, m2) ** 2) ** 2))


def fsc_loss(d1, d2, m1, m2):
    return 1 - (over_shells(fsc(d1, m2)) + over_shells(fsc(d2, m1))) / 2


def n2n_l2(d1, d2, m1, m2):
    return (np.mean((d1 - m2) ** 2) + np.mean((d2 - m1) ** 2)) / 2


def n2n_l1(d1, d2, m1, m2):
    return (np.mean(np.abs(d1 - m2)) + np.mean(np.abs(d2 - m1))) / 2


def truth_fsc(d, truth):
    return 1 - over_shells(fsc(d, truth))


def truth_fsc_masked(d, truth, mask):
    return truth_fsc(within(d, mask), truth)


def truth_l2(d, truth):
    return np.mean((d - truth) ** 2) / (np.mean(truth**2) + 0.1)


def var_bias(d1, d2, m1, m2):
    """With the cross term once as cov(M1,D2) and once as cov(M2,D1)."""
    power = np.sqrt(cov(m1, m1) * cov(m2, m2))
    noise = power - cov(m1, m2)
    return cov(d1, d2) + power - 2 * (cov(m1, d2) + cov(m2, d1)) / 2 - noise


def bias(d1, d2, m1, m2):
    return over_shells(var_bias(d1, d2, m1, m2) / np.sqrt(cov(m1, m1) * cov(m2, m2)))
