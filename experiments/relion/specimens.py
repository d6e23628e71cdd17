"""The particle sets of the refinements: what is simulated, at which size and signal-to-noise ratio.

The included weights `truth` were not trained on these models; 7NSG was among those by which they were chosen. Sets are
small, so that one refinement takes minutes of one core.
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ParticleSpec:
    """One particle set.

    Attributes:
        model: path of the model in the folder of models.
        particles: number of images.
        snr: of the images, see `crefjax simulate --snr`.
        box: side, pixels.
        voxel_size: Å.
        diameter: Å, of RELION's mask.
        shift: Å, offsets of the particles.
    """

    model: str
    particles: int
    snr: float
    box: int
    voxel_size: float
    diameter: float
    shift: float = 3.0


SPECIMENS = {
    # One chain of apoferritin, five helices, 71 Å: small, and the noisiest.
    "ferritin_chain": ParticleSpec("cryoem/7a4m.cif.gz", 100, 0.2, 32, 3.0, 88),
    # Polymerase of phage phi6, one chain, 87 Å.
    "polymerase": ParticleSpec("em/5fj6.pdb.gz", 100, 0.4, 32, 3.2, 98),
    # Tubulin dimer, 112 Å.
    "tubulin": ParticleSpec("em/5ij0.cif.gz", 100, 0.4, 32, 3.9, 120),
    # Larger sets: EAAT3, a membrane protein, 120 Å; Hfq and Crc with RNA, 130 Å; MsbA, an open transporter, 134 Å.
    "eaat3": ParticleSpec("em/7nsg.cif.gz", 300, 0.3, 56, 2.8, 132),
    "hfq_crc": ParticleSpec("em/6o1l.pdb.gz", 200, 0.3, 56, 2.8, 136),
    "msba": ParticleSpec("cryoem/8tsq.cif.gz", 300, 0.2, 48, 3.1, 140),
    # For the time of an iteration in a box as users have it.
    "tubulin_128": ParticleSpec("em/5ij0.cif.gz", 300, 0.4, 128, 1.2, 120),
}
SMALL = ("ferritin_chain", "polymerase", "tubulin")  # which are refined with several seeds


def find_model(models: Path, spec: ParticleSpec) -> Path:
    """Return the path of a model.

    Raises:
        FileNotFoundError: it is not there.
    """
    path = models / spec.model
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected the model of a particle set, found no such file")
    return path
