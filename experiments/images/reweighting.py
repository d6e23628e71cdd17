"""Weights of a signal and of noise by which their sum is as strong as in an image: the re-weighting of NT2C."""

import jax
import jax.numpy as jnp

from experiments.images.common import mean_of_squares


def least_squares(signal: jax.Array, noise: jax.Array, image: jax.Array) -> jax.Array:
    """Solve `alpha S + beta V + gamma = X` for every sample by least squares over its pixels.

    Args:
        signal: S, `(samples, y, x, 1)`.
        noise: V.
        image: X.

    Returns:
        `(samples, 3)`: alpha, beta, and gamma; alpha or beta is 0 where S or V is constant.
    """
    s, v, x = (each.reshape(len(each), -1) for each in (signal, noise, image))
    means = [each.mean(1, keepdims=True) for each in (s, v, x)]
    s, v, x = (each - mean for each, mean in zip((s, v, x), means, strict=True))
    ss, sv, vv, sx, vx = ((a * b).mean(1) for a, b in ((s, s), (s, v), (v, v), (s, x), (v, x)))
    # A little is added to each power, relative to all, so that a constant image takes no part.
    little = 1e-12 * (ss + vv) + 1e-30
    ss, vv = ss + little, vv + little
    determinant = ss * vv - sv**2
    alpha = (vv * sx - sv * vx) / determinant
    beta = (ss * vx - sv * sx) / determinant
    gamma = means[2][:, 0] - alpha * means[0][:, 0] - beta * means[1][:, 0]
    return jnp.stack([alpha, beta, gamma], 1)


def reweight(signal: jax.Array, noise: jax.Array, image: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return a pair of a noisy and a clean image with signal and noise as strong as in an image.

    Args:
        signal: S, `(samples, y, x, 1)`.
        noise: V.
        image: X.

    Returns:
        `alpha S + beta V + gamma`, with beta by the power that is left as `experiments.images.nt2c` describes, and
        `alpha S`.
    """
    alpha, beta, gamma = (each.reshape(-1, 1, 1, 1) for each in least_squares(signal, noise, image).T)
    left = mean_of_squares(image - alpha * signal - beta * noise - gamma).reshape(beta.shape)
    power = jnp.maximum(noise.var((1, 2, 3), keepdims=True), 1e-12)
    beta = jnp.sqrt(beta**2 + left / power)
    return alpha * signal + beta * noise + gamma, alpha * signal
