"""Outputs that cannot be, and options that make no sense."""

import os

from corpus_material import WITH_MASK, Accepted, Case, NotSilent, refused

# What a command writes, under a name that it would take.
OUTPUTS = {
    "denoise": "out.mrc",
    "mask": "out.mrc",
    "fsc": "out.json",
    "check": "out.json",
    "report": "out",
    "prepare": "out",
    "finetune": "out",
}
FILES = ("denoise", "mask", "fsc", "check")
FOLDERS = ("report", "prepare", "finetune")
NUMBERS = ("0", "-1", "nan", "inf", "-inf", "three", "")


def output(name, make=None):
    """The output at a place where something was made before."""

    def change(inputs):
        if make:
            make(inputs.folder.parent / name)
        inputs.output = name

    return change


def option(*words):
    def change(inputs):
        inputs.options = words

    return change


def of_another(path):
    path.write_text("dear to the user")


def folder_of_another(path):
    path.mkdir()
    (path / "notes.txt").write_text("dear to the user")


def below_a_file(path):
    path.parent.write_text("a file")


def hard_link(path):
    os.link(path.parent / "inputs" / "half_map_1.mrc", path)


def link_to_input(path):
    path.symlink_to("inputs/half_map_1.mrc")


def link_to_nothing(path):
    path.symlink_to("nowhere.mrc")


def read_only_folder(path):
    path.parent.mkdir()
    path.parent.chmod(0o555)


def full_standard_output(inputs):
    inputs.stdout = "/dev/full"


def output_cases():
    for command in FILES:
        name = OUTPUTS[command]
        yield Case(f"{command} into a missing folder", output(f"none/{name}"), refused("none"), (command,))
        yield Case(f"{command} below a file", output(f"file/{name}", below_a_file), refused("file"), (command,))
        yield Case(f"{command} over a folder", output(name, os.mkdir), refused(name), (command,))
        yield Case(f"{command} over a file of another's", output(name, of_another), refused(name), (command,))
        yield Case(f"{command} over a pipe", output(name, os.mkfifo), refused(name), (command,))
        yield Case(f"{command} over a hard link of its input", output(name, hard_link), refused(name), (command,))
        yield Case(f"{command} over a link to its input", output(name, link_to_input), refused(name), (command,))
        yield Case(f"{command} over its input", output("inputs/half_map_2.mrc"), refused("half_map_2"), (command,))
        yield Case(f"{command} to a device", output("/dev/full"), refused("/dev/full"), (command,))
        long = f"{'x' * 300}{name}"
        yield Case(f"{command} under a name that is too long", output(long), refused("x" * 300), (command,))
        if os.geteuid() != 0:
            locked = output(f"locked/{name}", read_only_folder)
            yield Case(f"{command} into a read-only folder", locked, refused("locked"), (command,))
    for command in FILES[:2]:
        for name in ("out", "out.txt", "out.mrcs", "out.png", "out.mrc.zip", ""):
            yield Case(f"{command} into {name or 'nothing'}", output(name), refused(), (command,))
        change = output("out.mrc", link_to_nothing)
        yield Case(f"{command} over a link to nothing", change, refused("out.mrc"), (command,))
    for command in FOLDERS:
        change = output("out", folder_of_another)
        yield Case(f"{command} over a folder of another's", change, refused("out"), (command,))
        yield Case(f"{command} over a file of another's", output("out", of_another), refused("out"), (command,))
        yield Case(f"{command} below a file", output("file/out", below_a_file), refused("file"), (command,))
        yield Case(f"{command} around its inputs", output("inputs"), refused("inputs"), (command,))
        yield Case(f"{command} over a link to nothing", output("out", link_to_nothing), refused("out"), (command,))
    for command in ("fsc", "check", "mask", "prepare"):
        yield Case(f"{command} to a full standard output", full_standard_output, refused(), (command,))


BAD_VALUES = {
    ("denoise", "report", "check", "fsc", "mask", "prepare", "finetune"): {"--voxel-size": NUMBERS},
    ("denoise",): {
        "--resolution": ("0", "-3", "nan", "inf", "fine"),
        "--max-memory": (*NUMBERS, "0.001"),
        "--rotations": ("0", "2", "25", "all"),
        "--scale": ("1", "output"),
        "--grid": ("3", "output"),
        "--device": ("tpu", "0"),
        "--weights": ("nowhere", "inputs", "inputs/half_map_1.mrc", ""),
    },
    ("mask",): {
        "--lowpass": NUMBERS,
        "--threshold": ("nan", "inf", "high", "1e9"),
        "--extend": ("-1", "nan", "inf", "far"),
        "--soft-edge": ("-1", "nan", "inf", "soft"),
    },
    ("prepare",): {
        "--patch": ("0", "-16", "15", "17", "8", "16.5", "large"),
        "--stride": ("0", "-1", "17", "x"),
        "--validation": ("1", "-0.1", "nan", "inf", "half"),
        "--jobs": ("0", "-1", "many"),
        "--dtype": ("float64", "int8"),
        "--seed": ("1.5", "x"),
    },
    ("finetune",): {
        "--minutes": NUMBERS,
        "--patch": ("0", "-16", "15", "17", "8", "large"),
        "--seed": ("-1", "4294967296", "x"),
        "--weights": ("nowhere", "inputs"),
    },
    WITH_MASK[:4]: {"--mask": ("nowhere.mrc", "inputs")},
}

NO_VALUE = {"--insist": "fsc", "--overwrite": "check", "--sharpen": "denoise", "--halves": "mask", "--local": "report"}
# Sense in itself, but not with these maps: the box has 24 voxels of 1.5 Å.
ABSURD = {
    "denoise": {"--resolution": ("1", "0.01", "1e9"), "--voxel-size": ("1e-9", "1e9")},
    "fsc": {"--voxel-size": ("1e-9", "1e9")},
    "check": {"--voxel-size": ("1e-9", "1e9")},
    "mask": {"--lowpass": ("1e9", "1e-9", "1"), "--extend": ("1000",), "--soft-edge": ("1e9",)},
}


def option_cases():
    for commands, options in BAD_VALUES.items():
        for name, values in options.items():
            for value in values:
                who = commands[0] if len(commands) == 1 else "any"
                yield Case(f"{who} {name} {value or 'nothing'}", option(f"{name}={value}"), refused(), commands)
    for name, command in NO_VALUE.items():
        yield Case(f"{command} {name}", option(name), refused(name), (command,))
    for command, options in ABSURD.items():
        for name, values in options.items():
            for value in values:
                change = option(f"{name}={value}")
                word = name.removeprefix("--").replace("-", " ")
                yield Case(f"absurd {command} {name} {value}", change, NotSilent((word,)), (command,))
    yield Case("the usual options", usual, Accepted(), ("denoise", "check", "fsc"))


def usual(inputs):
    inputs.add_mask()
    inputs.options = ("--voxel-size", "1.5")
