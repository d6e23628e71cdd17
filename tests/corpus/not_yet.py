"""Cases in which something else happens today than what must, with the commands in which it does."""

from corpus_material import ALL

FILES_LONGER = "a file longer than its header says, and so another one, is read without a word"
ABSURD_SIZE = "a voxel size that no map can have is taken without a word"
TINY = "squares of the voxels are lost in float32: the result is another one, or NumPy warns"
NOT_FOUND = "a half-map that is both mirrored and shifted is not found out"
FALSE_ALARM = "voxels of the particle are taken for hot ones where most of the box is masked"

ALL_READ = tuple(command for command in ALL if command != "finetune")  # which refuses so small a box before

NOT_YET = {
    "header of whole numbers of half the bytes": (FILES_LONGER, ("denoise", "check", "fsc")),
    "header of bytes of a quarter": (
        FILES_LONGER,
        ("denoise", "check", "fsc", "denoise one map", "report of it", "simulate"),
    ),
    **{
        f"header of {what}": (
            FILES_LONGER,
            ("denoise", "check", "fsc", "mask", "prepare", "denoise one map", "simulate"),
        )
        for what in ("a column less", "half of the sections")
    },
    "header: 0 bytes of an extended header of 80": (FILES_LONGER, ALL_READ),
    "header: 4 bytes of an extended header of 80": (FILES_LONGER, ALL_READ),
    **{f"header of a cell of {size} Å": (ABSURD_SIZE, ALL_READ) for size in ("1", "1e30", "1e-30")},
    **{
        f"absurd {command} --voxel-size {size}": (ABSURD_SIZE, (command,))
        for command in ("denoise", "fsc", "check")
        for size in ("1e-9", "1e9")
    },
    "voxels: a scale of 1e-20": (TINY, ("denoise", "report", "check", "fsc", "mask", "finetune")),
    "voxels: a scale of 1e-30": (TINY, ("denoise",)),
    "voxels: a scale of 1e-40": (TINY, ("denoise", "report", "fsc")),
    "pair: one mirrored and shifted": (
        NOT_FOUND,
        ("denoise", "report", "check", "fsc", "mask", "prepare", "finetune"),
    ),
    "pair: both multiplied by a soft cube": (FALSE_ALARM, ("check",)),
    "a name with bytes that are no UTF-8": ("a traceback: the name does not go into entry.json", ("simulate",)),
    "voxels of 1.5 and 1e-30 Å": ("a traceback: the ratio is too large for a whole number", ("report of it",)),
    "fsc over a pipe": ("waits for ever, for what it takes for an earlier curve", ("fsc",)),
    "check over a pipe": ("puts its JSON in place of the pipe", ("check",)),
    "finetune over a link to nothing": ("trains, and finds only then that it cannot write", ("finetune",)),
}


def today(case, command):
    """What happens instead, or None."""
    reason, commands = NOT_YET.get(case.name, (None, ()))
    return reason if command in commands else None
