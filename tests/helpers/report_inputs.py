"""Small maps of a report, in files, and numbers as a report has them, invented."""

import numpy as np

from crefjax.io.maps import Map, read_map, write_map
from crefjax.report.measure import ReportInputs
from crefjax.spectral.local_maps import LocalMaps

BOX = (20, 24, 28)  # z, y, x
VOXEL = 1.5
SHELLS = 15


def estimate(values, untrusted=()):
    """Value, error and trust of an estimate; None where it is not trusted."""
    trusted = [shell not in untrusted for shell in range(len(values))]
    return {
        "value": [value if good else None for value, good in zip(values, trusted, strict=True)],
        "error": [0.1 * value if good else None for value, good in zip(values, trusted, strict=True)],
        "trusted": trusted,
    }


def example_numbers(*, halves=True, warnings=()):
    """All numbers of a report, invented; shells from 11 on are not trusted."""
    shell = np.arange(SHELLS)
    fsc = 1 / (1 + np.exp(shell - 9.0))
    beyond = range(11, SHELLS)
    falling = (100 * np.exp(-0.5 * shell)).tolist()
    few = (0.1 * np.exp(-0.1 * shell)).tolist()
    return {
        "box": [28, 24, 20],
        "voxel_size": VOXEL,
        "shell": shell.tolist(),
        "frequency": (shell / (28 * VOXEL)).tolist(),
        "mask": {"from": "mask.mrc", "whole_box": False, "volume": 4321.5, "share": 0.0953},
        "curves": {
            "fsc_halves": fsc.tolist(),
            "fsc_halves_unmasked": (0.8 * fsc).tolist(),
            "cref": np.sqrt(2 * fsc / (1 + fsc)).tolist(),
            "fsc_denoised_full": [None, *fsc[1:].tolist()],
            "fsc_denoised_full_unmasked": (0.7 * fsc).tolist(),
            "power_full": falling,
            "power_denoised": falling,
        },
        "variances": {
            "signal": estimate(falling, beyond),
            "noise": estimate(few),
            "bias": estimate(few, beyond),
            "residual_noise": estimate(few, beyond),
        }
        if halves
        else None,
        "ratios": {
            "signal_to_noise_before": estimate(falling, beyond),
            "signal_to_noise_after": estimate(falling, beyond),
            "signal_to_bias": estimate(falling, beyond),
        }
        if halves
        else None,
        "signal_kept": estimate([0.9] * SHELLS, beyond) if halves else None,
        "noise_kept": estimate([0.2] * SHELLS, beyond) if halves else None,
        "resolution": {
            "fsc_0.143": {"angstrom": 3.89, "crossed": True},
            "fsc_0.5": {"angstrom": 4.67, "crossed": True},
        },
        "cref_rmse": 0.0213,
        "gain": 1.04,
        "symmetry": None,
        "guinier": None,
        "directional": {
            "half_angle": 20.0,
            "direction": [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]],
            "resolution": [3.9, 3.8],
            "fsc_low": (0.9 * fsc).tolist(),
            "fsc_high": fsc.tolist(),
            "text": "resolution by direction: 3.80 Å along (1.00, 0.00, 0.00), no sign of preferred orientation",
        },
        "warnings": list(warnings),
        "notes": ["something to know"],
        "use": {"for": ["looking at it"], "not_for": ["reporting a resolution from it"]},
    }


def body(seed=None):
    """A soft ball off the middle, with noise if there is a seed, `(z, y, x)`."""
    z, y, x = np.meshgrid(*(np.arange(side) for side in BOX), indexing="ij")
    density = 5 * np.exp(-(((z - 8) / 4) ** 2 + ((y - 13) / 5) ** 2 + ((x - 18) / 6) ** 2))
    if seed is not None:
        density = density + np.random.default_rng(seed).standard_normal(BOX)
    return density.astype(np.float32)


def soft_mask():
    return np.clip(2 * body(), 0, 1)


def local():
    """Agreement rises along x and change falls."""
    rising = np.broadcast_to(np.linspace(0, 1, BOX[2], dtype=np.float32), BOX)
    return LocalMaps(rising.copy(), 1 - rising, 12.0, 3.9)


def report_inputs(folder, name="denoised.mrc"):
    """Half-maps and their denoised map, written into a folder and read again."""
    maps = {}
    for file, array in (("half_1.mrc", body(1)), ("half_2.mrc", body(2)), (name, 0.5 * body())):
        write_map(folder / file, Map.from_array(array, VOXEL, (3.0, 0.0, -4.5)), label="written for a test")
        maps[file] = read_map(folder / file)
    parameters = {"command": "report", "denoised": str(folder / name)}
    return ReportInputs(*maps.values(), None, None, soft_mask(), "mask.mrc", parameters)


def sources(inputs):
    """Files of the maps, by the names that they have in report.json."""
    return {name: getattr(inputs, name).path for name in ("half_map_1", "half_map_2", "denoised")}
