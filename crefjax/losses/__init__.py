"""The training losses: how far denoised maps are from what the half-maps, or a truth, say they should be.

Their arguments, all `(..., z, y, x)` with any leading batch dimensions, masked by the caller, with a longest side of
at least 4 voxels (`N`), in float32 or cast to it (bfloat16, say):

- `half_map_1`, `half_map_2`: half-maps, alike but for independent noise;
- `denoised`: the network's output for the full map, which is the mean of the two;
- `denoised_1`, `denoised_2`: its outputs for each half-map alone;
- `truth`: the noise-free map, where it is known;
- `mask`: 0 to 1, around what there is of signal, where the maps are not masked themselves;
- `shells`: of the box; None makes them here.

A loss returns `(loss, aux)`: the loss has the leading dimensions, one value a sample, and aux is a dict of arrays that
its docstring names; those over shells are `(..., N // 2 + 1)`, from shell 0 to Nyquist. Means over shells run over
shells 1 to `N // 2 - 1`. Maps whose shapes differ, and shells of another box where a
loss has shells, raise ValueError.

`weighted` adds losses up by name. Under `jax.jit` a map that several losses look at is transformed once.
"""

from crefjax.losses.by_name import LOSSES, needs, weighted
from crefjax.losses.of_half_maps import (
    bias,
    cref_l1,
    cref_l1_masked,
    cref_rmse,
    fsc_loss,
    gain_l1,
    n2n_l1,
    n2n_l2,
)
from crefjax.losses.of_truth import truth_fsc, truth_fsc_masked, truth_l2

__all__ = [
    "LOSSES",
    "bias",
    "cref_l1",
    "cref_l1_masked",
    "cref_rmse",
    "fsc_loss",
    "gain_l1",
    "n2n_l1",
    "n2n_l2",
    "needs",
    "truth_fsc",
    "truth_fsc_masked",
    "truth_l2",
    "weighted",
]
