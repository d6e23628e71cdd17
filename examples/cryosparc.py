"""Denoise the half-maps of a CryoSPARC volume, and give the result back as the volume of an External job.

    pip install cryosparc-tools
    python examples/cryosparc.py URL EMAIL P3 W1 J42 volume

For a machine that sees the project's folder. The password is read from CRYOSPARC_PASSWORD.
"""

import os
import sys
from pathlib import Path

from cryosparc.tools import CryoSPARC

import crefjax
from crefjax.io.maps import write_map


def main(url: str, email: str, project_uid: str, workspace_uid: str, job_uid: str, output: str = "volume") -> None:
    """Denoise the output of a refinement."""
    cs = CryoSPARC(url, email=email, password=os.environ["CRYOSPARC_PASSWORD"])
    project = cs.find_project(project_uid)
    job = project.create_external_job(workspace_uid, title="crefjax denoise")
    job.add_input("volume", name="volume", min=1, max=1, slots=["map", "map_half_A", "map_half_B"])
    job.connect("volume", job_uid, output)
    job.add_output("volume", name="denoised", slots=["map"], passthrough="volume")
    with job.run():
        folder = Path(str(project.dir))
        volume = job.load_input("volume", ["map", "map_half_A", "map_half_B"])
        halves = [folder / volume[f"map_half_{half}/path"][0].lstrip(">") for half in "AB"]
        denoised = crefjax.denoise(*halves)
        path = f"{job.uid}/denoised.mrc"
        write_map(folder / path, denoised, label="crefjax denoise", overwrite=True)
        result = job.alloc_output("denoised", volume)
        result["map/path"] = path
        result["map/shape"] = denoised.array.shape
        result["map/psize_A"] = denoised.voxel_size
        job.save_output("denoised", result)
        # Not a half-map, and not for a resolution: the FSC of denoised half-maps is none.
        job.log("Denoised by crefjax. State the resolution of the half-maps, not of this map.")


if __name__ == "__main__":
    main(*sys.argv[1:])
