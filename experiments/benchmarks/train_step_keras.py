"""Time and peak memory of one training step of the paper's network, written plainly in Keras, to compare with.

    python -m experiments.benchmarks.train_step_keras --patch 96 --batch 1 --steps 5

needs TensorFlow (`pip install crefjax[published]`) and takes about a minute on two CPU cores. The network has Keras's
own layers; the loss is crefjax's cref_l1 (`crefjax.losses`), the optimizer Adam at 3e-4; forward, backward and update
are one `tf.function`. The shell sums are made by `unsorted_segment_sum` on half-spectra, or, with `--shells masks`, as
the formula is most plainly written: whole spectra, multiplied by a mask for every shell. It prints one line of JSON:
the median time of a step after the first two, which compile, and the largest resident memory of the process.
"""

import argparse
import json
import os
import statistics
import sys
import time

import numpy as np

from experiments.benchmarks.common import keras_network, peak_gib


def main(argv=None) -> int:
    """Measure what the command line asks for and print the line; 2 if TensorFlow is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patch", type=int, default=96, help="side of a cubic patch, voxels, a multiple of 32")
    parser.add_argument("--batch", type=int, default=1, help="patches in a step")
    parser.add_argument("--steps", type=int, default=5, help="steps that are timed")
    parser.add_argument(
        "--shells", choices=("segments", "masks"), default="segments", help="way of summing over shells"
    )
    arguments = parser.parse_args(argv)
    if arguments.patch < 32 or arguments.patch % 32 or min(arguments.batch, arguments.steps) < 1:
        parser.error("--patch is a positive multiple of 32, --batch and --steps are at least 1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    try:
        import keras  # noqa: F401
        import tensorflow  # noqa: F401
    except ImportError as error:
        print(f"needs TensorFlow: {error}; pip install 'crefjax[published]'", file=sys.stderr)
        return 2
    print(json.dumps(measure(arguments.patch, arguments.batch, arguments.steps, arguments.shells)))
    return 0


def measure(patch: int, batch: int, steps: int, shells: str) -> dict:
    """Run the steps, and return the seconds of one and the peak memory of the process, in GiB."""
    import tensorflow as tf

    random = np.random.default_rng(0)
    signal = random.standard_normal((batch, patch, patch, patch)).astype(np.float32)
    noise = random.standard_normal((2, *signal.shape)).astype(np.float32)
    maps = [tf.constant(signal + each) for each in noise]
    step = train_step(keras_network(), _CORRELATIONS[shells](patch))
    times = []
    for _ in range(2 + steps):
        start = time.perf_counter()
        float(step(*maps))
        times.append(time.perf_counter() - start)
    row = {"program": f"keras ({shells})", "patch": patch, "batch": batch}
    return row | {"seconds": statistics.median(times[2:]), "peak_gib": peak_gib()}


def train_step(model, correlation):
    """Return a compiled function of two half-maps that updates the model once and returns the loss."""
    import keras
    import tensorflow as tf

    optimizer = keras.optimizers.Adam(3e-4, epsilon=1e-8)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step(half_map_1, half_map_2):
        half = tf.maximum(correlation(half_map_1, half_map_2), 0.0)
        target = tf.sqrt(2 * half / (1 + half))
        full = (half_map_1 + half_map_2) / 2
        with tf.GradientTape() as tape:
            denoised = model(full[..., tf.newaxis], training=True)[..., 0]
            curve = correlation(denoised, full)
            loss = tf.reduce_mean(tf.abs(target - curve)[:, 1:-1])
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    return step


def correlation_by_masks(patch: int):
    """Return a function of two batches of maps `(batch, z, y, x)` that gives their FSC, `(batch, patch // 2 + 1)`."""
    import tensorflow as tf

    k = np.fft.fftfreq(patch, 1 / patch)
    shell = np.floor(np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2) + 0.5)
    masks = [tf.constant((shell == s).astype(np.float32)) for s in range(patch // 2 + 1)]

    def spectrum(maps):
        return tf.signal.fft3d(tf.cast(maps, tf.complex64))

    def correlation(map_1, map_2):
        one, two = spectrum(map_1), spectrum(map_2)
        product = tf.math.real(one * tf.math.conj(two))
        powers = [tf.math.real(a * tf.math.conj(a)) for a in (one, two)]
        sums = [[tf.reduce_sum(a * mask, (1, 2, 3)) for mask in masks] for a in (product, *powers)]
        cross, power_1, power_2 = (tf.stack(one, axis=1) for one in sums)
        return tf.math.divide_no_nan(cross, tf.sqrt(power_1 * power_2))

    return correlation


def correlation_by_segments(patch: int):
    """Return a function of two batches of maps `(batch, z, y, x)` that gives their FSC, `(batch, patch // 2 + 1)`."""
    import tensorflow as tf

    whole, half = np.fft.fftfreq(patch, 1 / patch), np.fft.rfftfreq(patch, 1 / patch)
    radius = np.sqrt(whole[:, None, None] ** 2 + half[:, None] ** 2 + whole**2)  # y, x, z
    count = patch // 2 + 1
    index = tf.constant(np.minimum(np.floor(radius + 0.5), count).astype(np.int32).ravel())
    weight = tf.constant(np.where(np.isin(half, (0, patch / 2)), 1.0, 2.0).astype(np.float32)[:, None])

    def spectrum(maps):  # TensorFlow has no gradient for rfft3d
        return tf.signal.fft(tf.transpose(tf.signal.rfft2d(maps), (0, 2, 3, 1)))

    def shell_sums(values):
        columns = tf.transpose(tf.reshape(values * weight, (tf.shape(values)[0], -1)))
        return tf.transpose(tf.math.unsorted_segment_sum(columns, index, count + 1)[:count])

    def correlation(map_1, map_2):
        one, two = spectrum(map_1), spectrum(map_2)
        product = shell_sums(tf.math.real(one * tf.math.conj(two)))
        squares = [shell_sums(tf.math.real(a) ** 2 + tf.math.imag(a) ** 2) for a in (one, two)]
        return tf.math.divide_no_nan(product, tf.sqrt(squares[0] * squares[1]))

    return correlation


_CORRELATIONS = {"segments": correlation_by_segments, "masks": correlation_by_masks}

if __name__ == "__main__":
    sys.exit(main())
