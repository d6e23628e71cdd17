"""Copy the weights of a finished run into the package, with their card, and keep the checkpoint that continues the run.

    python -m experiments.release_weights RUN NAME

RUN is the folder of a run of `experiments/configs/weights.py`, and NAME is one of `CARDS`. The command replaces
`crefjax/weights/shipped/NAME`, and `experiments/checkpoints/NAME` by the newest checkpoint, which is continued by

    mkdir -p RUN && cp -r experiments/checkpoints/NAME RUN/checkpoints
    crefjax train --config=experiments/configs/weights.py --workdir=RUN --config.steps=STEPS

with the other `--config` arguments that the run was started with.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from analysis.framework.command import run_command
from crefjax.errors import UserError
from crefjax.models.unet3d import UNet3DConfig
from crefjax.utils.atomic import atomic_directory
from crefjax.weights.store import load_weights, remove_absolute_paths, save_weights

ROOT = Path(__file__).parents[1]
CARDS = {
    "truth": {
        "losses": {"truth_fsc": 1.0, "truth_l2": 0.3},
        "teacher": (
            "the truth of simulated half-maps: 1 - FSC(denoised, truth), and 0.3 of the squared error over the power "
            "of the truth"
        ),
        "good_for": (
            "looking at maps and building into them; proteins, and less well RNA and DNA, with FSC-0.143 at 1.8 to "
            "9 Å, in voxels of any size, because maps are resampled to those of the training"
        ),
        "not_good_for": (
            "refining a model against, stating a resolution, other scales (subtomogram averages, whole cells), ligands "
            "and ions; detail beyond FSC-0.143 comes from what the network has learned about proteins, not from the "
            "data: see the report"
        ),
        "coarsest_resolution": 9.0,  # Å
    },
    "cref": {
        "losses": {"cref_l1": 0.5, "cref_l1_masked": 0.5, "gain_l1": 0.3, "fsc": 1.0, "n2n_l2": 0.3},
        "teacher": (
            "half-maps alone, no truth: 1 - FSC(denoised half-map, other half-map), and 0.3 of their squared "
            "difference; 0.5 of |C_ref - FSC(denoised, full map)|, in the whole patch and within the mask each; 0.3 of "
            "the distance of the output's scale from the signal's, shell by shell"
        ),
        "good_for": (
            "comparison with weights that learned from a truth; with `--scale input`, a map whose FSC to its input "
            "follows C_ref, which is what the published network is for"
        ),
        "not_good_for": (
            "refining a model against, stating a resolution; its maps are farther from the truth than those of the "
            "weights `truth`"
        ),
    },
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 0, or 2 after a mistake by the user."""
    parser = argparse.ArgumentParser(prog="python -m experiments.release_weights", description=__doc__.splitlines()[0])
    parser.add_argument("run", metavar="RUN", type=Path, help="folder of a run")
    parser.add_argument("name", metavar="NAME", choices=sorted(CARDS), help="name of the weights")
    return run_command("release_weights", parser, lambda arguments: release(arguments.run, arguments.name), argv)


def release(run: Path, name: str) -> None:
    """Write the weights folder and the checkpoint.

    Args:
        run: Folder of a run.
        name: One of `CARDS`.

    Raises:
        UserError: The run has no weights or no checkpoint, is not at the end of a cycle, used other losses, or started
            neither from random parameters nor from weights of that name.
    """
    weights = load_weights(run / "last")  # from the end of a cycle; `best` may be of an earlier one
    checkpoints = sorted((run / "checkpoints").glob("[0-9]*"), key=lambda path: int(path.name))
    if not checkpoints:
        raise UserError(f"{run / 'checkpoints'}: expected checkpoints of a run, found none; give the folder of a run")
    if weights.card.get("step") != int(checkpoints[-1].name):
        raise UserError(
            f"{run}: expected weights and a checkpoint of the same step, found {weights.card.get('step')} and "
            f"{checkpoints[-1].name}; let the run finish"
        )
    about = _about(run, name, weights.card)
    folder = ROOT / "crefjax" / "weights" / "shipped" / name
    network = UNet3DConfig(**{**vars(weights.config), "compute_dtype": "float32"})
    save_weights(folder, weights.parameters, network, about, overwrite=True)
    checkpoint = ROOT / "experiments" / "checkpoints" / name
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    with atomic_directory(checkpoint) as new:
        shutil.copytree(checkpoints[-1], new / checkpoints[-1].name)
        remove_absolute_paths(new)
    print(f"wrote {folder} and {checkpoint / checkpoints[-1].name}")


def _about(run, name, card):
    from crefjax.training.stream_source import stream_models

    about = dict(CARDS[name])
    losses = about.pop("losses")
    if card.get("losses") != losses:
        raise UserError(
            f"{run}: expected a run with the losses {losses}, found {card.get('losses')}; give another name"
        )
    try:
        fields = json.loads((run / "config.json").read_text(encoding="utf-8"))
        config = _config_of(fields)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{run / 'config.json'}: expected the config of a run, found {error!r}") from error
    if Path(fields["weights"]).name not in ("", name):
        raise UserError(
            f"{run}: expected a run from random parameters or from {name}, found one from {fields['weights']}"
        )
    if Path(fields["weights"]).is_absolute():  # the checkpoint has it too, and is resumed with the same path alone
        raise UserError(
            f"{run}: expected a run that names its weights by a relative path, found {fields['weights']}; train from "
            f"runs/start/{name}"
        )
    cycle = fields["schedule.cycle_steps"]
    if fields["schedule.name"] == "cycles" and card["step"] % cycle:
        raise UserError(
            f"{run}: expected the end of a cycle of {cycle} steps, found step {card['step']}; continue the run"
        )
    training, held_out = ({_pdb(path.name.split(".")[0]) for path in paths} for paths in stream_models(config))
    unseen = {_pdb(name) for name in fields["data.stream.exclude"].split(",")}
    if fields["weights"]:  # the models that those were trained on count too
        training |= _listed(name, "models")
        unseen = (unseen | _listed(name, "never_seen")) - training

    return {
        "source": "trained with crefjax by experiments/configs/weights.py",
        "license": "Apache-2.0, as crefjax",
        "training": card["training"],
        "expected_input": card["expected_input"],
        **({"grid": card["grid"]} if "grid" in card else {}),
        **about,
        "models": f"PDB entries (CC0) {', '.join(sorted(training))}",
        "models_for_choosing": f"PDB entries (CC0) {', '.join(sorted(held_out))}",
        "never_seen": f"PDB entries {', '.join(sorted(unseen))}",
    }


def _listed(name, field):
    """Return the entries on the card of the weights that are replaced."""
    try:
        card = json.loads((ROOT / "crefjax" / "weights" / "shipped" / name / "card.json").read_text(encoding="utf-8"))
    except OSError:
        return set()
    return {entry.strip() for entry in card[field].removeprefix("PDB entries").removeprefix(" (CC0)").split(",")}


def _config_of(fields):
    from crefjax.training.config import current_names, default

    config = default()
    for field, value in current_names(fields).items():
        *groups, last = field.split(".")
        holder = config
        for group in groups:
            holder = holder[group]
        holder[last] = tuple(value) if isinstance(value, list) else value
    return config


def _pdb(name):
    return name.strip().upper().removesuffix("_TARGET")


if __name__ == "__main__":
    sys.exit(main())
