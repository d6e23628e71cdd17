"""Time, peak memory and accuracy of the Fourier shell correlation of whole maps.

    python -m experiments.benchmarks.fsc --boxes 128 256 512

takes about two minutes on two CPU cores, and 6 GiB for the box of 512. For every box two maps of a smooth signal
(amplitudes that fall by a B-factor of 100 Å² at 1 Å a voxel) with independent noise are made; then

    float64   what `crefjax fsc` computes
    float32   the differentiable function that training uses
    running   float32 transforms, and shell sums by adding one voxel after the other, which shows the use of stages

each in a process of its own, and the largest difference in any shell from float64 NumPy (boxes up to --numpy) or from
crefjax's float64 (larger boxes).
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from experiments.benchmarks.common import peak_gib, run_worker

WAYS = ("float64", "float32", "running", "numpy")


def main(argv=None) -> int:
    """Measure what the command line asks for and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boxes", type=int, nargs="+", default=[128, 256], help="cubic boxes, voxels")
    parser.add_argument("--numpy", type=int, default=256, help="largest box for float64 NumPy")
    parser.add_argument("--worker", nargs=3, metavar=("WAY", "BOX", "OUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.worker:
        way, box, out = arguments.worker
        print(json.dumps(measure(way, int(box), Path(out))))
        return 0
    print(f"{'box':>5} {'way':8} {'first s':>8} {'second s':>8} {'GiB':>6}  largest difference in a shell")
    for box in arguments.boxes:
        ways = [way for way in WAYS if way != "numpy" or box <= arguments.numpy]
        with tempfile.TemporaryDirectory() as folder:
            rows = {way: measure_in_worker(way, box, Path(folder) / f"{way}.npy") for way in ways}
            reference = np.load(Path(folder) / f"{'numpy' if 'numpy' in rows else 'float64'}.npy")
            for way, row in rows.items():
                error = np.abs(np.load(Path(folder) / f"{way}.npy") - reference).max()
                print(f"{box:5d} {way:8} {row['first']:8.2f} {row['second']:8.2f} {row['gib']:6.2f}  {error:.1e}")
    return 0


def measure_in_worker(way: str, box: int, out: Path) -> dict:
    """Measure in a process of its own."""
    row = run_worker("fsc", "--worker", way, box, out)
    if "failed" in row:
        raise SystemExit(f"{way}, {box}: {row['failed']}")
    return row


def measure(way: str, box: int, out: Path) -> dict:
    """Compute the curve twice in this process and save it."""
    one, two = make_pair(box)
    run = {"float64": _float64, "float32": _float32, "running": _running, "numpy": _numpy}[way]
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        curve = run(one, two)
        seconds.append(time.perf_counter() - start)
    np.save(out, curve)
    return {"first": seconds[0], "second": seconds[1], "gib": peak_gib()}


def make_pair(box: int) -> list[np.ndarray]:
    """Return two maps of one smooth signal with independent white noise, float32."""
    import scipy.fft

    rng = np.random.default_rng(0)
    spectrum = scipy.fft.rfftn(rng.standard_normal((box, box, box), dtype=np.float32), overwrite_x=True)
    z, y, x = (np.square(f) for f in (np.fft.fftfreq(box), np.fft.fftfreq(box), np.fft.rfftfreq(box)))
    for plane, z_squared in zip(spectrum, z, strict=True):
        plane *= np.exp(-25 * (z_squared + y[:, None] + x)).astype(np.float32)
    signal = scipy.fft.irfftn(spectrum, s=(box, box, box), overwrite_x=True)
    level = np.float32(0.1 * signal.std())
    return [signal + level * rng.standard_normal(signal.shape, dtype=np.float32) for _ in range(2)]


def _float64(one, two):
    from crefjax.spectral.fsc import fsc_curve

    return fsc_curve(one, two, 1.0).fsc


def _float32(one, two):
    import jax

    from crefjax.spectral.fsc import fsc
    from crefjax.spectral.shells import box_shells

    return np.asarray(jax.jit(fsc)(one, two, box_shells(one.shape)), np.float64)


def _running(one, two):
    import scipy.fft

    from crefjax.spectral.shells import box_shells

    shells = box_shells(one.shape)
    index = shells.index.ravel().astype(np.int64)
    first, second = (scipy.fft.rfftn(a) for a in (one, two))

    def sums(values):
        total = np.zeros(shells.count + 1, np.float32)
        np.add.at(total, index, (values * shells.weight).ravel())
        return total[:-1].astype(np.float64)

    cross = sums(first.real * second.real + first.imag * second.imag)
    powers = [sums(np.square(a.real) + np.square(a.imag)) for a in (first, second)]
    return cross / np.sqrt(powers[0] * powers[1])


def _numpy(one, two):
    from crefjax.spectral.shells import box_shells

    shells = box_shells(one.shape)
    first, second = (np.fft.rfftn(a.astype(np.float64)) for a in (one, two))

    def sums(values):
        return np.bincount(shells.index.ravel(), (values * shells.weight).ravel(), shells.count + 1)[:-1]

    cross = sums((first * second.conj()).real)
    return cross / np.sqrt(sums(np.abs(first) ** 2) * sums(np.abs(second) ** 2))


if __name__ == "__main__":
    sys.exit(main())
