"""`crefjax images`: a simulated set in one command, and mistakes in one line."""

import json
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from helpers.cli import assert_refused, run_ok

SMALL = ["phantom", "--residues", 100, "--pixel-size", 4, "--count", 2, "--side", 32]


def test_a_set_is_simulated_from_a_map(workdir, random_map):
    outcome = run_ok("images", "simulate", random_map, "-o", "set", "--count", 2, "--dose", 30)
    assert "2 particle images of 16x16 pixels of 5 Å, particles bright" in outcome.out
    record = json.loads((workdir / "set/set.json").read_text())
    assert record["parameters"]["dose"] == 30
    assert record["parameters"]["pixel_size"] == 5
    with mrcfile.open(workdir / "set/images.mrcs") as file:
        assert file.data.shape == (2, 16, 16)
    assert_refused(workdir, "images", "simulate", random_map, "-o", "set", "--count", 2, names="exists")


@pytest.fixture
def random_map(workdir):
    array = np.zeros((16, 16, 16), np.float32)
    array[5:11, 6:10, 4:11] = np.random.default_rng(0).uniform(1, 2, (6, 4, 7))
    with mrcfile.new(workdir / "particle.mrc") as file:
        file.set_data(array)
        file.voxel_size = 5.0
    return "particle.mrc"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([*SMALL[:3], "--count", 2], "expected a pixel size, found none; give the --pixel-size"),
        ([*SMALL, "--particles", 5], "--particles has an effect only with --micrographs"),
        ([*SMALL, "--micrographs", "--shift", 5], "--shift has an effect only without --micrographs"),
        ([*SMALL, "--dose", 1e6], "expected dose of 0.1 to 10000"),
        (["none.pdb", "--pixel-size", 4, "--count", 2], "none.pdb"),
        (["none.pdb", "--residues", 5, "--pixel-size", 4, "--count", 2], "--residues has an effect only"),
    ],
)
def test_mistakes_are_refused_and_leave_nothing(workdir, options, message):
    assert_refused(workdir, "images", "simulate", *options, "-o", "set", names=message)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A weights folder of a small random 2D network."""
    import jax

    from crefjax.models import load_model
    from crefjax.weights.store import save_weights

    model = load_model("unet2d")
    config = model.config(depth=1, down_width=2, up_width=2, last_widths=(2,))
    parameters = jax.tree.map(np.asarray, model.init(jax.random.key(0), config))
    about = {
        "source": "random",
        "license": "none needed",
        "training": "none",
        "expected_input": "any",
        "task": "images",
    }
    folder = tmp_path_factory.mktemp("weights") / "small"
    save_weights(folder, parameters, config, about | {"pixel_sizes": [2.0, 3.0]})
    return folder


def write_images(path, count=3, side=24, seed=0, pixel_size=2.5):
    images = np.random.default_rng(seed).normal(4, 2, (count, side, side + 2)).astype(np.float32)
    with mrcfile.new(path) as file:
        file.set_data(images if count > 1 else images[0])
        if count > 1:
            file.set_image_stack()
        file.voxel_size = pixel_size
    return images


def write_star(*names, label="rlnImageName"):
    path = Path("a.star")
    path.write_text(f"data_\nloop_\n_{label}\n" + "\n".join(names) + "\n", encoding="utf-8")
    return path


def test_a_stack_is_denoised_into_a_stack_with_its_pixel_size(workdir, weights):
    images = write_images("in.mrcs")
    outcome = run_ok("images", "denoise", "in.mrcs", "-o", "out.mrcs", "--weights", weights, "--device", "cpu")
    assert "denoised 3 images with small" in outcome.out
    assert "a reconstruction from denoised particles is biased" in outcome.err
    with mrcfile.open("out.mrcs") as file:
        assert file.data.shape == images.shape
        assert file.voxel_size.x == 2.5
        assert not np.array_equal(file.data, images)
    assert_refused(workdir, "images", "denoise", "in.mrcs", "-o", "out.mrcs", "--weights", weights, names="exists")


def test_a_folder_is_continued_and_other_settings_are_refused(workdir, weights):
    for number in range(3):
        write_images(f"m{number}.mrc", count=1, seed=number)
    words = ["images", "denoise", "m0.mrc", "m1.mrc", "m2.mrc", "-o", "out", "--weights", weights]
    run_ok(*words)
    before = (workdir / "out/m0.mrc").stat().st_mtime_ns
    (workdir / "out/m1.mrc").unlink()
    assert "denoised 1 image with" in run_ok(*words).out
    assert (workdir / "out/m0.mrc").stat().st_mtime_ns == before
    (workdir / "m2.mrc").unlink()
    write_images("m2.mrc", count=1, seed=9)
    assert "m2.mrc: has changed since it was denoised" in assert_refused(workdir, *words)
    assert "denoised 3 images" in run_ok(*words, "--overwrite").out
    assert_refused(workdir, *words, "--contrast", "bright", names="other weights or settings")


def test_images_of_a_star_file_are_denoised_and_listed(workdir, weights):
    write_images("a.mrcs")
    write_images("b.mrcs", seed=1)
    rows = ["000001@a.mrcs 1.5", "000003@b.mrcs 2.5", "000002@a.mrcs 3.5"]
    text = "data_particles\n\nloop_\n_rlnImageName #1\n_rlnDefocusU #2\n"
    (workdir / "in.star").write_text(text + "\n".join(rows) + "\n")
    run_ok("images", "denoise", "in.star", "-o", "out", "--weights", weights)
    written = (workdir / "out/in.star").read_text()
    assert "000003@out/b.mrcs 2.5" in " ".join(written.split())
    with mrcfile.open("out/b.mrcs") as file:
        assert file.data.shape == (3, 24, 26)


def test_micrographs_of_a_star_file_are_dark_and_particles_bright_whatever_the_size_of_their_stacks(workdir, weights):
    for label, count, sign in (("rlnMicrographName", 3, "dark"), ("rlnImageName", 1, "bright")):
        write_images(f"{sign}.mrcs", count=count)
        write_star(f"1@{sign}.mrcs", label=label)
        run_ok("images", "denoise", "a.star", "-o", f"star-{sign}", "--weights", weights)
        other = "bright" if sign == "dark" else "dark"
        for contrast in (sign, other):
            words = ["--weights", weights, "--contrast", contrast, "--overwrite"]
            run_ok("images", "denoise", f"{sign}.mrcs", "-o", f"{contrast}-asked.mrcs", *words)
        found = mrcfile.read(f"star-{sign}/{sign}.mrcs")
        np.testing.assert_array_equal(found.squeeze(), mrcfile.read(f"{sign}-asked.mrcs").squeeze())
        assert not np.array_equal(found.squeeze(), mrcfile.read(f"{other}-asked.mrcs").squeeze())


def test_a_star_file_is_not_replaced_by_the_list_of_its_denoised_stacks(workdir, weights):
    Path("out").mkdir()
    write_images("a.mrcs")
    write_star("1@a.mrcs").rename("out/a.star")
    words = ["images", "denoise", "out/a.star", "-o", "out", "--weights", weights, "--overwrite"]
    assert_refused(workdir, *words, names="would replace its input")


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda: None, ["none.mrcs", "-o", "o.mrcs"], "none.mrcs"),
        (lambda: mrcfile.write("v.mrc", np.ones((8, 8, 8), "f4")), ["v.mrc", "-o", "o.mrc"], "found a volume of 8x8x8"),
        (lambda: write_images("a.mrcs"), ["a.mrcs", "-o", "none/o.mrcs"], "does not exist"),
        (lambda: write_images("a.mrcs"), ["a.mrcs", "-o", "a.mrcs", "--overwrite"], "would replace its input"),
        (lambda: write_images("a.mrcs"), ["a.mrcs", "-o", "o.mrcs", "--weights", "truth"], "weights for images"),
        (
            lambda: write_star("1@no.mrcs"),
            ["a.star", "-o", "o"],
            "row 1 names no.mrcs, which does not exist",
        ),
        (
            lambda: (write_images("a.mrcs"), write_star("1@a.mrcs", "4@a.mrcs")),
            ["a.star", "-o", "o"],
            "expected at most image 3 of a.mrcs, found 4 in row 2",
        ),
    ],
)
def test_mistakes_of_denoise_are_refused(workdir, weights, make, options, message):
    make()
    chosen = [] if "--weights" in options else ["--weights", weights]
    assert_refused(workdir, "images", "denoise", *options, *chosen, names=message)


def test_pixels_of_another_size_are_warned_of(workdir, weights):
    write_images("in.mrcs", pixel_size=9.0)
    outcome = run_ok("images", "denoise", "in.mrcs", "-o", "out.mrcs", "--weights", weights)
    assert "pixels of 9 Å; the weights small were trained on 2 to 3 Å" in outcome.err


def test_noise_is_extracted_where_the_denoised_micrograph_is_flat(workdir):
    random = np.random.default_rng(0)
    raw = random.normal(size=(96, 96)).astype(np.float32)
    denoised = np.full((96, 96), 0.5, np.float32) + random.normal(0, 1e-4, (96, 96)).astype(np.float32)
    denoised[40:60, 40:60] = 5
    mrcfile.write("raw.mrc", raw)
    mrcfile.write("denoised.mrc", denoised)
    words = ["images", "extract-noise", "raw.mrc", "--denoised", "denoised.mrc", "--patch", 32, "-o"]
    outcome = run_ok(*words, "noise.mrcs")
    with mrcfile.open("noise.mrcs") as file:
        patches = file.data
    corners = [(y, x) for y in range(0, 65, 16) for x in range(0, 65, 16)]
    free = [(y, x) for y, x in corners if y + 32 <= 40 or y >= 60 or x + 32 <= 40 or x >= 60]
    assert f"{len(free)} patches of noise of 32 pixels" in outcome.out
    np.testing.assert_array_equal(patches, [raw[y : y + 32, x : x + 32] for y, x in free])
    assert_refused(workdir, *words, "noise.mrcs", names="exists")
    assert_refused(workdir, *words, "noise.mrc", names="must end in .mrcs")
    denoised[::2] += 3 * random.normal(size=(48, 96))
    mrcfile.write("denoised.mrc", denoised, overwrite=True)
    assert_refused(workdir, *words, "other.mrcs", names="found none; lower the --threshold")


def test_noise_is_found_in_micrographs_that_are_denoised_here(workdir, weights):
    """As in the denoised files of `images denoise`."""
    for number in range(2):
        write_images(f"m{number}.mrc", count=1, side=48, seed=number)
    run_ok("images", "denoise", "m0.mrc", "m1.mrc", "-o", "out", "--weights", weights)
    words = ["images", "extract-noise", "m0.mrc", "m1.mrc", "--patch", 16, "--threshold", 0.05]
    run_ok(*words, "--denoised", "out/m0.mrc", "out/m1.mrc", "-o", "expected.mrcs")
    run_ok(*words, "--weights", weights, "-o", "found.mrcs")
    np.testing.assert_array_equal(mrcfile.read("found.mrcs"), mrcfile.read("expected.mrcs"))
    assert 0 < len(mrcfile.read("found.mrcs")) < 2 * 5 * 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["a.mrc", "-o", "a.mrcs", "--patch", 32], "at least 32 pixels a side, found 26x24"),
        (
            ["a.mrc", "-o", "o.mrcs", "--patch", 16, "--threshold", 1],
            "expected a --threshold of -1 to below 1, found 1",
        ),
        (["a.mrc", "b.mrc", "-o", "o.mrcs", "--patch", 16], "b.mrc: expected pixels of 2.5 Å, as a.mrc has, found 5 Å"),
        (["c.mrcs", "-o", "c.mrcs", "--patch", 16, "--overwrite"], "would replace the input c.mrcs"),
        (["a.mrc", "-o", "none/o.mrcs", "--patch", 16], "does not exist"),
        (
            ["a.mrc", "--denoised", "b.mrc", "--weights", "images", "-o", "o.mrcs"],
            "--weights has no effect with --denoised",
        ),
        (["a.mrc", "--denoised", "a.mrc", "b.mrc", "--patch", 16, "-o", "o.mrcs"], "expected 1 denoised micrographs"),
        (["a.mrc", "--denoised", "c.mrcs", "--patch", 16, "-o", "o.mrcs"], "c.mrcs: expected 1 images of"),
    ],
)
def test_mistakes_of_extract_noise_are_refused(workdir, options, message):
    write_images("a.mrc", count=1)
    write_images("b.mrc", count=1, pixel_size=5.0)
    write_images("c.mrcs")
    assert_refused(workdir, "images", "extract-noise", *options, names=message)
