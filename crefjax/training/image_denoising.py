"""The task of denoising images: that of maps, with losses and metrics on rings; and its data, simulated sets.

With the loss `n2n_l2` it is Noise2Noise (Lehtinen et al. 2018) on two half-exposures, as Topaz-Denoise trains (Bepler
et al. 2020). A custom task on images takes its batches from `image_source`; `crefjax.images.batches` says what
they hold.
"""

from dataclasses import dataclass, replace

from ml_collections import ConfigDict

from crefjax.errors import UserError
from crefjax.images.batches import image_batches
from crefjax.images.sets import ImageSet
from crefjax.models import load_model
from crefjax.training.denoising import DenoisingTask, denoising_task
from crefjax.training.processes import current_of_batch
from crefjax.training.sources import MapSource, NamedBatches, matching_folders
from crefjax.training.task import TaskDescription

EXPECTED_INPUT = "an image with mean 0 and standard deviation 1, particles bright"
NOT_GOOD_FOR = (
    "reconstruction: denoised particles are biased towards what the network was trained on; images unlike those of the "
    "training, in pixel size, dose, or specimen"
)
HELD_OUT_SEED = 2**31  # of the crops that are evaluated


@dataclass(frozen=True)
class ImageDenoisingTask(DenoisingTask):
    """Trains a 2D network on batches of `half_map_1`, `half_map_2`, and `truth`, all `(samples, 1, y, x)`.

    Attributes:
        pixel_sizes: Smallest and largest pixel size of the images, Å, for the card.
    """

    name: str = "images"
    pixel_sizes: tuple[float, float] = (0.0, 0.0)

    def describe(self, config):
        """Name the crops and the losses."""
        return TaskDescription(f"crops of {self.patch} pixels a side", super().describe(config).card)

    def card(self):
        """Name the pixel sizes of the training, and what the images are good for."""
        return {
            "expected_input": EXPECTED_INPUT,
            "task": self.name,
            "pixel_sizes": list(self.pixel_sizes),
            "good_for": "looking at images, and finding particles in them",
            "not_good_for": NOT_GOOD_FOR,
        }


def make_task(config: ConfigDict) -> tuple[ImageDenoisingTask, MapSource]:
    """Return the task of a config and its data.

    Raises:
        UserError: The network is not for images, a setting is invalid, or a set cannot be read.
    """
    check_network(config)
    source = image_source(config)
    task = denoising_task(config, truth=True, kind=ImageDenoisingTask)
    return replace(task, pixel_sizes=pixel_sizes(config)), source


def check_network(config: ConfigDict) -> None:
    """Check that the network of a config is one for images.

    Raises:
        UserError: It is not.
    """
    name = config.network.name
    if load_model(name).dimensions != 2:
        raise UserError(
            f"config: network.name: expected a network for images, such as unet2d, found {name!r}; start from "
            "crefjax.training.config.default('unet2d')"
        )


def open_sets(config: ConfigDict) -> list[ImageSet]:
    """Return the sets of a config, open.

    Raises:
        UserError: There are none, or one cannot be read.
    """
    named = config.data.images.folders
    folders = matching_folders(named)
    if not folders:
        raise UserError(
            f"config: data.images.folders: expected sets of images, found none matching {named!r}; name at least one"
        )
    return [ImageSet(folder) for folder in folders]


def pixel_sizes(config: ConfigDict) -> tuple[float, float]:
    """Return the smallest and the largest pixel size of the sets of a config, Å.

    Raises:
        UserError: There are no sets, or one cannot be read.
    """
    sizes = []
    for opened in open_sets(config):
        with opened:
            sizes.append(opened.pixel_size)
    return min(sizes), max(sizes)


def image_source(config: ConfigDict) -> MapSource:
    """Return batches of crops of the sets of a config; the last images of every set are held out.

    Raises:
        UserError: A set cannot be read, its images are smaller than the crops, or there are too few to hold some out.
    """
    chosen, sets = config.data.images, open_sets(config)
    kept, settings = 1 - chosen.held_out, {"patch": config.data.patch, "batch": config.batch}
    settings["process"] = tuple(current_of_batch(config.batch))

    def training():
        return NamedBatches(image_batches(sets, seed=config.seed, turns=chosen.turns, last=kept, **settings))

    def held_out():
        once = {"seed": HELD_OUT_SEED, "turns": False, "first": kept, "count": chosen.held_out_patches}
        return NamedBatches(image_batches(sets, **once, **settings))

    evaluates = chosen.held_out > 0 and chosen.held_out_patches > 0
    for batches in (training, held_out) if evaluates else (training,):
        batches().close()  # so that a mistake is reported before the training
    count = sum(opened.count for opened in sets)
    return MapSource(
        size=None,
        training=training,
        held_out=held_out if evaluates else None,
        description=f"crops of {count} simulated images in {len(sets)} set" + ("s" if len(sets) > 1 else ""),
        patch=config.data.patch,
        truth=True,
        held_out_size=chosen.held_out_patches,
        divided=True,
    )
