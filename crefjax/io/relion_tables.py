"""Columns of RELION's STAR files of particles: optics groups, and Euler angles in its convention."""

from typing import Protocol

import numpy as np


class Optics(Protocol):
    """What a microscope is, such as `crefjax.simulate.imaging.CtfParameters`: kV, mm, and a fraction."""

    voltage: float
    spherical_aberration: float
    amplitude_contrast: float


def optics_table(optics: Optics, pixel_size: float, side: int) -> dict[str, list]:
    """Return the block `optics` of images of one optics group, by labels.

    Args:
        optics: of the microscope.
        pixel_size: Å.
        side: of the images, pixels.
    """
    return {
        "rlnOpticsGroup": [1],
        "rlnOpticsGroupName": ["opticsGroup1"],
        "rlnVoltage": [float(optics.voltage)],
        "rlnSphericalAberration": [float(optics.spherical_aberration)],
        "rlnAmplitudeContrast": [float(optics.amplitude_contrast)],
        "rlnMicrographOriginalPixelSize": [float(pixel_size)],
        "rlnImagePixelSize": [float(pixel_size)],
        "rlnImageSize": [int(side)],
        "rlnImageDimensionality": [2],
    }


def euler_angles(rotations: np.ndarray) -> np.ndarray:
    """Return RELION's angles of rotations.

    RELION's matrix of (rot, tilt, psi) turns a density into the frame of its image, `Rz(-psi) Ry(-tilt) Rz(-rot)` with
    right-handed rotations of column vectors (x, y, z); Heymann, Chagoyen & Belnap 2005, J. Struct. Biol. 151, 196.

    Args:
        rotations: `(count, 3, 3)`, acting on `(z, y, x)`; as a map's axes are.

    Returns:
        `(count, 3)`: rot, tilt, and psi in degrees, -180 to 180, 0 to 180, -180 to 180.
    """
    matrix = np.asarray(rotations, np.float64)[:, ::-1, ::-1]
    sine = np.hypot(matrix[:, 2, 0], matrix[:, 2, 1])
    tilt = np.arctan2(sine, matrix[:, 2, 2])
    # Seen along the axis only the sum, or the difference, of the other two is defined; psi takes all of it.
    along = sine < 1e-6
    rot = np.where(along, 0, np.arctan2(matrix[:, 2, 1], matrix[:, 2, 0]))
    psi_along = np.arctan2(-matrix[:, 1, 0] * np.sign(matrix[:, 2, 2]), matrix[:, 1, 1])
    psi = np.where(along, psi_along, np.arctan2(matrix[:, 1, 2], -matrix[:, 0, 2]))
    return np.rad2deg(np.stack([rot, tilt, psi], -1))
