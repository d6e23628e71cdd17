import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from scipy.spatial.transform import Rotation

from crefjax.errors import UserError
from crefjax.simulate.imaging import (
    CtfParameters,
    Particles,
    image_frequencies,
    rotations_of_vectors,
    sample_particle_poses,
    sample_pose_errors,
    sample_rotations,
    shift_phases,
    slice_points,
    split_into_batches,
    white_noise,
)

MANY = 4096


def angles_of(rotations):
    """The angle of each rotation in radians."""
    return np.arccos(np.clip((np.trace(rotations, axis1=1, axis2=2) - 1) / 2, -1, 1))


@pytest.mark.parametrize("concentration", [0.0, 1e-3, 5.0, 500.0])
def test_rotations_are_orthogonal(concentration):
    rotations = np.asarray(sample_rotations(jax.random.key(1), 100, concentration), np.float64)
    np.testing.assert_allclose(rotations @ rotations.transpose(0, 2, 1), np.tile(np.eye(3), (100, 1, 1)), atol=1e-6)
    np.testing.assert_allclose(np.linalg.det(rotations), 1, atol=1e-6)


def test_rotations_without_preference_are_uniform():
    rotations = np.asarray(sample_rotations(jax.random.key(2), MANY))
    # Haar measure: the angle's distribution function is (a - sin a) / pi, wherever the rotations start from.
    for start in (np.eye(3), Rotation.from_rotvec([0.3, -1, 2]).as_matrix()):
        found = scipy.stats.kstest(angles_of(rotations @ start), lambda a: (a - np.sin(a)) / np.pi)
        assert found.pvalue > 1e-3
    # Rows and columns are even over the sphere: every component is even over -1 to 1 (Archimedes).
    for component in rotations.reshape(-1, 9).T:
        assert scipy.stats.kstest(component, scipy.stats.uniform(-1, 2).cdf).pvalue > 1e-3


@pytest.mark.parametrize("concentration", [1e-4, 2.0, 30.0])
def test_preferred_views_follow_von_mises_and_fisher(concentration):
    rotations = np.asarray(sample_rotations(jax.random.key(3), MANY, concentration))
    views = rotations[:, 0]  # the vector of the density that is turned onto z
    distribution = scipy.stats.vonmises_fisher([1, 0, 0], concentration)
    expected = distribution.rvs(MANY, random_state=np.random.default_rng(4))
    assert scipy.stats.ks_2samp(views[:, 0], expected[:, 0]).pvalue > 1e-3
    for azimuth in (np.arctan2(views[:, 1], views[:, 2]), np.arctan2(rotations[:, 1, 0], rotations[:, 2, 0])):
        assert scipy.stats.kstest(azimuth, scipy.stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue > 1e-3


def test_half_of_the_views_are_within_the_documented_angle():
    views = np.asarray(sample_rotations(jax.random.key(5), MANY, 5.0))[:, 0, 0]
    np.testing.assert_allclose(np.median(np.degrees(np.arccos(views))), 30.53, atol=1)


def test_rotations_of_vectors_are_right_handed_about_their_axes():
    vectors = np.random.default_rng(6).normal(size=(20, 3)).astype(np.float32)
    vectors[0] = 0
    expected = Rotation.from_rotvec(vectors[:, ::-1]).as_matrix()[:, ::-1, ::-1]  # SciPy writes (x, y, z)
    np.testing.assert_allclose(rotations_of_vectors(jnp.asarray(vectors)), expected, atol=2e-6)


def test_pose_errors_have_the_given_size_about_every_axis():
    errors = np.asarray(sample_pose_errors(jax.random.key(7), MANY, 3.0), np.float64)
    vectors = np.degrees(Rotation.from_matrix(errors).as_rotvec())
    np.testing.assert_allclose(vectors.std(0), 3.0, rtol=0.05)
    assert np.abs(vectors.mean(0)).max() < 5 * 3 / math.sqrt(MANY)
    np.testing.assert_array_equal(
        sample_pose_errors(jax.random.key(7), 5, 0.0), np.tile(np.eye(3, dtype=np.float32), (5, 1, 1))
    )


def test_a_particle_does_not_depend_on_the_count():
    settings = {"pose_error": 2.0, "shift_error": 1.0, "preferred": 1.0}
    few, many = (sample_particle_poses(jax.random.key(8), Particles(count, **settings)) for count in (7, 20))
    for name in ("rotation", "assigned", "shift", "defocus"):
        np.testing.assert_array_equal(getattr(few, name), getattr(many, name)[:7])
    np.testing.assert_array_equal(jax.random.key_data(few.key), jax.random.key_data(many.key)[:7])


def test_poses_follow_the_configuration():
    optics = CtfParameters(defocus_min=5000, defocus_max=9000)
    particles = Particles(MANY, pose_error=2.0, shift_error=1.5, ctf=optics)
    views = sample_particle_poses(jax.random.key(9), particles)
    assert scipy.stats.kstest(views.defocus, scipy.stats.uniform(5000, 4000).cdf).pvalue > 1e-3
    assert scipy.stats.kstest(np.ravel(views.shift), scipy.stats.norm(0, 1.5).cdf).pvalue > 1e-3
    error = np.asarray(views.assigned @ views.rotation.transpose(0, 2, 1), np.float64)
    # Three Gaussian components: the mean angle is that of Maxwell's distribution.
    np.testing.assert_allclose(np.degrees(angles_of(error)).mean(), 2 * math.sqrt(8 / math.pi), rtol=0.03)
    exact = sample_particle_poses(jax.random.key(9), Particles(10))
    np.testing.assert_allclose(exact.assigned, exact.rotation, atol=1e-6)
    np.testing.assert_array_equal(exact.shift, 0)


@pytest.mark.parametrize("side", [8, 10, 24])
def test_image_frequencies_are_one_of_each_pair_within_nyquist(side):
    half = {tuple(k) for k in image_frequencies(side).astype(int)}
    mates = {(-y, -x) for y, x in half}
    n = side // 2
    disc = {(y, x) for y in range(-n, n + 1) for x in range(-n, n + 1) if y * y + x * x < n * n}
    assert half | mates == disc
    assert half & mates == {(0, 0)}
    np.testing.assert_array_equal(image_frequencies(side)[0], [0, 0])


def test_slice_points_are_in_the_rotated_plane():
    rotation = Rotation.from_euler("zyx", [20, 40, 60], degrees=True).as_matrix()
    points, flipped = slice_points(jnp.asarray(rotation[None], jnp.float32), 16)
    plane = np.column_stack([np.zeros(len(points)), image_frequencies(16)])
    expected = 2 * np.array([rotation.T @ k for k in plane])
    np.testing.assert_allclose(np.where(flipped[:, None], -points, points), expected, atol=1e-5)
    assert (np.asarray(points)[:, 2] >= 0).all()


def test_shift_phases_shift_an_image():
    side, moved = 16, (3, -2)
    image = np.random.default_rng(10).normal(size=(side, side))
    k = image_frequencies(side).astype(int)
    before, after = (np.fft.fft2(array)[k[:, 0], k[:, 1]] for array in (image, np.roll(image, moved, (0, 1))))
    phases = shift_phases(jnp.asarray([moved], jnp.float32) * 1.5, side, 1.5)
    np.testing.assert_allclose(before * phases[0], after, atol=1e-4)


def test_white_noise_is_that_of_independent_pixels():
    side = 8
    keys = jax.random.split(jax.random.key(11), 20000)
    drawn = np.asarray(jax.vmap(lambda key: white_noise(key, side))(keys))
    k = image_frequencies(side).astype(int)
    images = np.random.default_rng(12).normal(size=(20000, side, side))
    expected = np.fft.fft2(images)[:, k[:, 0], k[:, 1]]
    np.testing.assert_array_equal(drawn[:, 0].imag, 0)
    assert scipy.stats.ks_2samp(drawn[:, 0].real, expected[:, 0].real).pvalue > 1e-3
    for part in (np.real, np.imag):
        assert scipy.stats.ks_2samp(part(drawn[:, 1:]).ravel(), part(expected[:, 1:]).ravel()).pvalue > 1e-3
    covariance = np.cov(np.concatenate([drawn.real, drawn.imag[:, 1:]], 1).T)
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 6 * side**2 / math.sqrt(20000)


def test_batches_count_every_particle_once():
    views = sample_particle_poses(jax.random.key(13), Particles(10))
    batches = split_into_batches(views, 4)
    assert [batch.rotation.shape for batch in batches] == [(4, 3, 3)] * 3
    np.testing.assert_array_equal(np.concatenate([batch.counts for batch in batches]), [1] * 10 + [0] * 2)
    np.testing.assert_array_equal(np.concatenate([batch.defocus for batch in batches])[:10], views.defocus)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": 0}, "at least one particle in each half, found 0"),
        ({"pose_error": -1.0}, "pose_error.*-1"),
        ({"shift_error": math.inf}, "shift_error"),
        ({"preferred": math.nan}, "preferred"),
        ({"ctf": CtfParameters(voltage=-1)}, "voltage"),
    ],
)
def test_invalid_particles_raise(change, message):
    with pytest.raises(UserError, match=message):
        Particles(**change).check()
