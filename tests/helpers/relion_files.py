"""Files of one external reconstruction, as RELION writes them, made by hand."""

import mrcfile
import numpy as np

GENERAL = """
# version 30001

data_external_reconstruct_general

_rlnExtReconsDataReal                  {root}_external_reconstruct_data_real.mrc
_rlnExtReconsDataImag                  {root}_external_reconstruct_data_imag.mrc
_rlnExtReconsWeight                    {root}_external_reconstruct_weight.mrc
_rlnExtReconsResult                    {root}_external_reconstruct.mrc
_rlnExtReconsResultStarfile            {root}_external_reconstruct_out.star
_rlnTau2FudgeFactor                        1.000000
_rlnPaddingFactor                          2.000000
_rlnReferenceDimensionality                       3
_rlnOriginalImageSize                            {box}
_rlnCurrentImageSize                             {current}
{more}

# version 30001

data_external_reconstruct_tau2

loop_
_rlnSpectralIndex #1
_rlnReferenceTau2 #2
_rlnGoldStandardFsc #3
{rows}

"""

RELION_5 = "_rlnPixelSize                              {voxel_size:.6f}\n_rlnParticleDiameter   {diameter:.6f}\n"


def write_mrc(path, array, voxel_size=0.0):
    """Write an array as RELION does: space group 0, and a voxel size of 0 unless one is given."""
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(np.asarray(array, np.float32))
        file.voxel_size = voxel_size
        file.header.ispg = 0
        file.header.mz = len(array)


def write_job(folder, root, fsc, *, box, current, tau2=None, more=""):
    """Write the STAR file of a call, and return its path; the arrays are not written."""
    tau2 = np.ones(box // 2 + 1) if tau2 is None else tau2
    rows = "\n".join(f"{s:12d} {t:12.6f} {f:12.6f}" for s, (t, f) in enumerate(zip(tau2, fsc, strict=True)))
    path = folder / f"{root}_external_reconstruct.star"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(GENERAL.format(root=root, box=box, current=current, more=more, rows=rows))
    return path


def write_model(folder, root, voxel_size):
    """Write the start of a model file of RELION 3.1, from which the voxel size is known."""
    text = f"\ndata_model_general\n\n_rlnOriginalImageSize 32\n_rlnPixelSize {voxel_size:.6f}\n"
    (folder / f"{root}_model.star").write_text(text)


def write_optimiser(folder, root, diameter):
    """Write the start of an optimiser file."""
    text = f"# RELION optimiser; version 3.1.3\n\ndata_optimiser_general\n\n_rlnParticleDiameter {diameter:.6f}\n"
    (folder / f"{root}_optimiser.star").write_text(text)
