"""Signal, noise, bias and residual noise of pairs whose truth is known, by formula or by construction."""

import functools

import numpy as np
import pytest
from helpers import filtered_pairs as pairs

from crefjax.spectral.covariances import shell_covariances
from crefjax.spectral.variances import overall_gain, shell_variances, variances_from

SIDE, NOISE = 40, 1.0
SHELLS = np.arange(SIDE // 2 + 1)
MASK = pairs.ball((SIDE,) * 3, 13)
DRAWS = 25
QUANTITIES = ("signal", "noise", "bias", "residual_noise", "added", "signal_kept", "noise_kept")
PLANTED = (SHELLS >= 5) & (SHELLS <= 8)


@functools.cache
def signal():
    return pairs.falling_signal(SIDE, fall=4, radius=11)


@functools.cache
def planted():
    """False structure in shells 5 to 8, 0.3 times the signal's power there on average, in the place of the signal."""
    white = np.random.default_rng(7).standard_normal((SIDE,) * 3)
    power = pairs.cross(signal(), signal())
    return pairs.filtered(white, np.where(PLANTED, np.sqrt(0.3 * power), 0))


def halves(seed):
    random = np.random.default_rng(100 + seed)
    return [signal() + np.sqrt(NOISE) * random.standard_normal((SIDE,) * 3) for _ in range(2)]


WIENER = 1 / (1 + np.exp((SHELLS - 8) / 2.0))
GAUSSIAN = np.exp(-((SHELLS / 10) ** 2))
# Factors of a shell, and what is added to every output.
DENOISERS = {
    "wiener": (WIENER, lambda: 0.0),
    "blur": (GAUSSIAN, lambda: 0.0),
    "planting": (WIENER, planted),
}


def denoised(maps, name):
    factors, added = DENOISERS[name]
    return [pairs.filtered(map_, factors) + added() for map_ in maps]


@functools.cache
def truth(name, masked):
    """Each quantity per shell: powers of known maps, and formulas for the noise."""
    mask = MASK if masked else None
    factors, added = DENOISERS[name]
    mean = pairs.filtered(signal(), factors) + added()
    s, x, dd = (pairs.cross(*pair, mask) for pair in ((signal(), signal()), (signal(), mean), (mean, mean)))
    noise, passed, residual = (
        pairs.expected_noise(NOISE, transfer, mask) for transfer in (0 * factors + 1, factors**0.5, factors)
    )
    return {
        "signal": s,
        "noise": noise,
        "bias": pairs.cross(mean - signal(), mean - signal(), mask),
        "residual_noise": residual,
        "added": dd - x**2 / s,
        "signal_kept": x / s,
        "noise_kept": passed / noise,
    }


@functools.cache
def found(name, masked):
    mask = MASK if masked else None
    return [shell_variances(*maps, *denoised(maps, name), mask) for maps in map(halves, range(DRAWS))]


def test_truth_of_linear_filters_is_the_formula():
    """Without a mask: (1 - h)² var(S), h² var(N), h, and nothing added."""
    for name in ("wiener", "blur"):
        factors, known = DENOISERS[name][0], truth(name, False)
        tiny = 1e-9 * known["signal"].max()
        np.testing.assert_allclose(known["bias"], (1 - factors) ** 2 * known["signal"], atol=tiny)
        np.testing.assert_allclose(known["residual_noise"], factors**2 * NOISE)
        np.testing.assert_allclose(known["signal_kept"], factors)
        np.testing.assert_allclose(known["noise_kept"], factors)
        np.testing.assert_allclose(known["added"], 0, atol=tiny)
    known = truth("planting", False)
    power = pairs.cross(planted(), planted())
    assert (power[PLANTED] > 0.2 * known["signal"][PLANTED]).all()
    np.testing.assert_allclose(known["added"][PLANTED], power[PLANTED], rtol=0.15)  # but for what is like the signal


@pytest.mark.parametrize("quantity", QUANTITIES)
@pytest.mark.parametrize("name", DENOISERS)
@pytest.mark.parametrize("masked", [False, True])
def test_truth_lies_within_two_errors(masked, name, quantity):
    """A normal number does so in 95 % of all cases; so do these, over shells and draws."""
    if not masked and (quantity == "noise_kept" or (name != "planting" and quantity in ("added", "signal_kept"))):
        return  # exact, see the next test
    within, known = [], truth(name, masked)[quantity]
    for estimate_ in found(name, masked):
        estimate = getattr(estimate_, quantity)
        usable = np.isfinite(estimate.value) & (SHELLS > 0)
        if quantity in ("signal_kept", "added"):
            usable &= estimate_.signal.trusted  # a quotient by what may be 0 is no normal number
        if quantity == "residual_noise" and masked:
            usable &= DENOISERS[name][0] > 0.1  # beyond, it is what the mask brings from stronger shells
        apart = np.abs(estimate.value - known)
        within.append((apart <= 2 * estimate.error)[usable])
    share = np.concatenate(within).mean()
    # Ratios have a least error that is often more than theirs.
    assert 0.9 <= share <= (0.99 if quantity in QUANTITIES[:4] else 1)


@pytest.mark.parametrize("name", ["wiener", "blur"])
def test_linear_filters_are_exact_without_a_mask(name):
    """What a shell is multiplied by is found whatever the noise, and nothing is gained: the ratio stays."""
    for variances in found(name, False)[:5]:
        tell = variances.signal.trusted
        assert tell.sum() >= 8
        np.testing.assert_allclose(variances.signal_kept.value[tell], DENOISERS[name][0][tell], rtol=1e-5)
        np.testing.assert_allclose(variances.noise_kept.value[1:], DENOISERS[name][0][1:], rtol=1e-5)
        np.testing.assert_allclose(variances.added.value[tell] / variances.signal.value[tell], 0, atol=1e-6)
        before, after = variances.signal_to_noise_before, variances.signal_to_noise_after
        np.testing.assert_allclose(after.value[tell], before.value[tell], rtol=1e-5)


@pytest.mark.parametrize("name", ["wiener", "blur"])
def test_linear_filters_add_no_structure_under_a_mask(name):
    """The mask mixes shells, so only nearly; on the average over draws, where there is signal."""
    before, after = (
        np.median([getattr(variances, part).value for variances in found(name, True)], axis=0)
        for part in ("signal_to_noise_before", "signal_to_noise_after")
    )
    assert (after / before)[2:13].max() < 1.15
    assert (after / before)[2:13].min() > 0.75


@pytest.mark.parametrize("masked", [False, True])
def test_planted_structure_is_found_where_it_is(masked):
    """Trusted, of its power, in the shells where it was planted; elsewhere hardly any of the signal's."""
    estimates = found("planting", masked)
    known = truth("planting", masked)
    trusted = np.array([variances.added.trusted for variances in estimates])
    shares = np.array([variances.added.value / variances.signal.value for variances in estimates])
    assert trusted[:, PLANTED].all()
    mean = np.mean([variances.added.value for variances in estimates], axis=0)
    np.testing.assert_allclose(mean[PLANTED] / known["added"][PLANTED], 1, atol=0.1)
    # A masked shell holds a part of its neighbors' too.
    elsewhere = (SHELLS > 0) & (SHELLS < 13) & ~np.convolve(PLANTED, [1, 1, 1] if masked else [1], "same").astype(bool)
    notable = trusted[:, elsewhere] & (shares[:, elsewhere] > 0.01)
    assert notable.mean() < 0.05


def test_planted_structure_alone_without_a_filter():
    """D = M + P: bias is P's power, in its shells, and no other shell holds any."""
    for seed in range(5):
        maps = halves(seed)
        variances = shell_variances(*maps, *(half + planted() for half in maps))
        power = pairs.cross(planted(), planted())
        # All that is uncertain cancels in cov(M1 - D1, M2 - D2).
        np.testing.assert_allclose(variances.bias.value[PLANTED], power[PLANTED], rtol=1e-4)
        np.testing.assert_allclose(variances.bias.value[~PLANTED], 0, atol=1e-6 * variances.signal.value.max())
        assert (np.abs(variances.added.value - truth_of_planting_alone()) <= 4 * variances.added.error)[PLANTED].all()
        assert variances.added.trusted[PLANTED].all()
        assert not variances.bias.trusted[~PLANTED].any()
        assert not variances.added.trusted[~PLANTED].any()
        assert not variances.inconsistent.any()


def truth_of_planting_alone():
    s, p, x = (pairs.cross(*pair) for pair in ((signal(), signal()), (planted(), planted()), (signal(), planted())))
    return p - x**2 / s


SOUND = {
    "as it was": lambda first, second: (first, second),
    "wiener": lambda *maps: denoised(maps, "wiener"),
    "planting": lambda *maps: denoised(maps, "planting"),
    "the truth": lambda *_: (signal(), signal()),
    "the truth twice as strong": lambda *_: (2 * signal(), 2 * signal()),
    "half its noise": lambda *maps: [(signal() + map_) / 2 for map_ in maps],
    "inverted": lambda *maps: [-map_ for map_ in maps],
}


@pytest.mark.parametrize("name", SOUND)
def test_sound_pairs_are_consistent(name):
    fired = 0
    for seed in range(50):
        maps = halves(seed)
        fired += bool(shell_variances(*maps, *SOUND[name](*maps), MASK).inconsistent.any())
    assert fired <= 1


def filtered_both(maps, factors=GAUSSIAN):
    return [pairs.filtered(map_, factors) for map_ in maps]


UNSOUND = {
    "the denoised full map, twice": lambda a, b: (a, b, *filtered_both([(a + b) / 2] * 2)),
    "the full map, twice": lambda a, b: (a, b, (a + b) / 2, (a + b) / 2),
    "the halves exchanged": lambda a, b: (a, b, *filtered_both([b, a])),
    "the second's noise in the first": lambda a, b: (a, b, *filtered_both([a + b / 2, b])),
    "half-maps that anticorrelate": lambda a, b: (a - signal(), signal() - a + 0.3 * b, a, b),
}


@pytest.mark.parametrize("name", UNSOUND)
def test_pairs_that_violate_the_assumptions_are_inconsistent(name):
    for seed in range(5):
        variances = shell_variances(*UNSOUND[name](*halves(seed)), MASK)
        assert variances.inconsistent.sum() >= 3
        for quantity in (*QUANTITIES, "signal_to_noise_after", "signal_to_bias", "signal_to_added"):
            assert not getattr(variances, quantity).trusted[variances.inconsistent].any()


def test_gain_undoes_any_overall_factor():
    maps = halves(0)
    outputs = denoised(maps, "wiener")
    plain = shell_variances(*maps, *outputs, MASK, gain=None)
    for factor in (0.01, 30.0):
        variances = shell_variances(*maps, *(factor * output for output in outputs), MASK, gain=None)
        assert variances.gain * factor == pytest.approx(plain.gain, rel=1e-5)
        for quantity in (*QUANTITIES, "signal_to_noise_after", "signal_to_bias"):
            expected, value = getattr(plain, quantity), getattr(variances, quantity)
            np.testing.assert_allclose(value.value[1:], expected.value[1:], rtol=1e-3, atol=1e-4)
            np.testing.assert_allclose(value.error[1:], expected.error[1:], rtol=1e-2, atol=1e-4)


def test_gain_is_the_one_of_least_bias():
    """By trying: no other factor leaves less of `sum |S - g D|²`, that is of g² cov(D1,D2) - 2 g X."""
    maps = halves(1)
    covariances = shell_covariances([*maps, *denoised(maps, "blur")])
    s, weight = covariances.matrix, covariances.voxels
    gains = np.linspace(0.5, 2, 3001)
    x = (s[:, 0, 3] + s[:, 1, 2]) / 2
    bias = [np.sum((weight * (gain**2 * s[:, 2, 3] - 2 * gain * x))[1:-1]) for gain in gains]
    assert overall_gain(covariances) == pytest.approx(gains[np.argmin(bias)], abs=1e-3)


def test_gain_of_an_output_without_the_signal_is_1():
    maps = halves(2)
    assert overall_gain(shell_covariances([*maps, *(-map_ for map_ in maps)])) == 1.0
    assert overall_gain(shell_covariances([*maps, *(0 * map_ for map_ in maps)])) == 1.0


@pytest.mark.parametrize("gain", [1.0, None])
def test_values_are_those_of_the_formulas(gain):
    maps = halves(3)
    outputs = denoised(maps, "planting")
    variances = shell_variances(*maps, *outputs, MASK, gain=gain)
    s = np.array([[pairs.cross(a, b, MASK) for a in (*maps, *outputs)] for b in (*maps, *outputs)])
    s = s[:, :, 1:]
    s[2:] *= variances.gain
    s[:, 2:] *= variances.gain
    x, noise = (s[0, 3] + s[1, 2]) / 2, np.sqrt(s[0, 0] * s[1, 1]) - s[0, 1]
    expected = {
        "signal": s[0, 1],
        "noise": noise,
        "residual_noise": np.sqrt(s[2, 2] * s[3, 3]) - s[2, 3],
        "bias": s[2, 3] + np.sqrt(s[0, 0] * s[1, 1]) - 2 * x - noise,
        "added": s[2, 3] - x**2 / s[0, 1],
        "signal_kept": x / s[0, 1],
        "signal_to_noise_before": s[0, 1] / noise,
        "signal_to_bias": s[0, 1] / (s[2, 3] - 2 * x + s[0, 1]),
    }
    for name, values in expected.items():
        estimate = getattr(variances, name)
        np.testing.assert_allclose((estimate.value[1:] - values) / estimate.error[1:], 0, atol=1e-3)


def test_shells_of_noise_alone_are_not_trusted():
    """Two errors above 0 by chance in 2.3 % of all cases."""
    random = np.random.default_rng(9)
    trusted = []
    for _ in range(20):
        maps = [random.standard_normal((SIDE,) * 3) for _ in range(2)]
        variances = shell_variances(*maps, *maps, MASK)
        trusted.append(variances.signal.trusted[1:])
        assert variances.noise.trusted[4:].all()
        assert not variances.inconsistent.any()
    assert np.mean(trusted) < 0.07


def test_maps_without_power_give_no_numbers_and_no_warnings():
    zero = np.zeros((16, 16, 16), np.float32)
    for maps in ([zero] * 4, [*np.random.default_rng(0).standard_normal((2, 16, 16, 16)), zero, zero]):
        variances = variances_from(shell_covariances(maps))
        for quantity in (*QUANTITIES, "signal_to_noise_before", "signal_to_noise_after", "signal_to_bias"):
            estimate = getattr(variances, quantity)
            assert not (estimate.trusted & ~np.isfinite(estimate.value)).any()
            assert not np.isinf(estimate.value).any()
            assert not np.isinf(estimate.error).any()
        assert not variances.residual_noise.trusted.any()


def test_invalid_arguments_raise():
    maps = halves(0)
    with pytest.raises(ValueError, match="one shape"):
        shell_variances(*maps, maps[0], maps[1][:8])
    with pytest.raises(ValueError, match="mask"):
        shell_variances(*maps, *maps, 0 * maps[0])
