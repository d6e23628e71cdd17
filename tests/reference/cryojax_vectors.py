"""Reference images of five Gaussian atoms, made by cryojax, another simulator of cryo-EM images.

    python tests/reference/cryojax_vectors.py

in an environment of its own with cryojax 0.6.0 (LGPL, from PyPI) writes `cryojax_vectors.npz` beside this file. The
tests read that file alone. It is float32 and has

    ctf          `(48, 25)`, at the frequencies of rfft2: cryojax's sign, which is opposite to crefjax's
    projection   `(48, 48)`, 1/Å: projected scattering length density
    counts       `(48, 48)`: expected electrons per pixel, with their mean over the image equal to the dose

with the parameters below, which the tests import.
"""

from pathlib import Path

import numpy as np

FILE = Path(__file__).with_suffix(".npz")
SIDE, PIXEL_SIZE, VOLTAGE, DOSE = 48, 2.0, 300.0, 40.0
DEFOCUS_U, DEFOCUS_V, AZIMUTH = 9600.0, 8400.0, 35.0
ABERRATION, AMPLITUDE_CONTRAST, B_FACTOR = 2.7, 0.1, 0.0
# Å, (x, y, z); amplitudes in Å and B-factors in Å² of two Gaussians for each atom.
POSITIONS = np.array(
    [[0.0, 0.0, 0.0], [14.5, -3.0, 6.0], [-7.2, 11.0, -9.5], [-12.0, -15.5, 3.3], [5.1, 17.9, 10.7]], np.float32
)
AMPLITUDES = np.array([[9.0, 4.0], [6.0, 2.0], [7.5, 3.0], [5.0, 5.0], [8.0, 1.0]], np.float32)
B_FACTORS = np.array([700.0, 450.0], np.float32)
# A rotation about the axis (1, 2, 3) by 50 degrees, on (x, y, z), that takes the atoms into the image's frame.
AXIS, ANGLE = np.array([1.0, 2.0, 3.0]) / np.sqrt(14.0), 50.0


def main() -> None:
    """Write the vectors."""
    import cryojax.simulator as cxs
    from cryojax.rotations import SO3

    variances = np.broadcast_to(B_FACTORS / (8 * np.pi**2), AMPLITUDES.shape)
    volume = cxs.GaussianMixtureVolume(POSITIONS, AMPLITUDES, variances)
    config = cxs.DoseImageConfig((SIDE, SIDE), PIXEL_SIZE, VOLTAGE, electron_dose=DOSE)
    half = np.deg2rad(ANGLE) / 2
    pose = cxs.QuaternionPose.from_rotation(SO3(np.array([np.cos(half), *(np.sin(half) * AXIS)], np.float32)))
    rotated = np.asarray(volume.rotate_to_pose(pose).positions)
    ctf = cxs.AstigmaticCTF((DEFOCUS_U + DEFOCUS_V) / 2, DEFOCUS_U - DEFOCUS_V, AZIMUTH, ABERRATION)
    integrator = cxs.GaussianMixtureProjection(sampling_mode="point")
    projection = cxs.make_image_model(volume, config, pose, volume_integrator=integrator).simulate()
    counts = cxs.make_image_model(
        volume,
        config,
        pose,
        cxs.ContrastTransferTheory(ctf, amplitude_contrast_ratio=AMPLITUDE_CONTRAST),
        integrator,
        cxs.PoissonDetector(),
        quantity_mode="counts",
    ).simulate()
    values = ctf(config.get_frequency_grid(), config.wavelength_in_angstroms, AMPLITUDE_CONTRAST)
    arrays = {"ctf": values, "projection": projection, "counts": counts, "rotated": rotated}
    np.savez_compressed(FILE, **{name: np.asarray(array, np.float32) for name, array in arrays.items()})
    print({name: (array.shape, float(array.std())) for name, array in arrays.items()})


if __name__ == "__main__":
    main()
