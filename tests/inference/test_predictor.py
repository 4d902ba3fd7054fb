"""`Predictor`: ensembles, flips, batches, memory, threads, and sharing cases out."""

import gc
import math
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import dicom_files
from msa2net.config import Config, NetworkConfig, dump_config
from msa2net.data.case import Case, Geometry
from msa2net.data.io.readers import read_path
from msa2net.data.preprocessing import Preprocessing
from msa2net.errors import ConfigError, DataError
from msa2net.inference.backend import DEFAULT_BATCH
from msa2net.inference.predictor import Predictor
from msa2net.inference.run_folder import ModelMetadata, save_run
from msa2net.inference.sharding import World, share_of, world_from_environment
from msa2net.inference.torch_backend import (
    LARGEST,
    EnsembleMember,
    TorchBackend,
    largest_batch_size,
)
from msa2net.models.registry import create_model

NAMES = ("background", "a", "b")
SIZE = (32, 32)
PLAIN = Preprocessing(channels=1, image_size=SIZE, fit="stretch")


class Says(nn.Module):
    """Answers the same probabilities everywhere."""

    def __init__(self, *probabilities: float) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(probabilities).log())

    def forward(self, image_BCHW: Tensor) -> Tensor:
        return self.logits[:, None, None].expand(len(image_BCHW), -1, *image_BCHW.shape[2:])


class Mixed(nn.Module):
    """Convolutions, dropout and a norm: what differs between training and evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 8, 5, padding=2), nn.BatchNorm2d(8), nn.Dropout(0.5), nn.Conv2d(8, 3, 1)
        )

    def forward(self, image_BCHW: Tensor) -> Tensor:
        assert not self.training
        return self.layers(image_BCHW)


class Narrow(Mixed):
    """Runs out of memory where more than a few slices come at once."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self.batches: list[int] = []

    def forward(self, image_BCHW: Tensor) -> Tensor:
        self.batches.append(len(image_BCHW))
        if len(image_BCHW) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return super().forward(image_BCHW)


def picture(seed: int = 0, shape=(40, 50)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


# --- ensembles


def test_probabilities_are_averaged_not_votes():
    """By hand: 0.9 and twice 0.4 of class a make 0.567, although two of three say b."""
    sure, unsure = Says(0.05, 0.9, 0.05), Says(0.05, 0.4, 0.55)
    others = [EnsembleMember(unsure, PLAIN), EnsembleMember(unsure, PLAIN)]
    assert (Predictor(unsure, PLAIN, NAMES)(picture()).labels == 2).all()
    assert (Predictor(sure, PLAIN, NAMES, others=others)(picture()).labels == 1).all()


def test_every_network_counts_once_however_they_are_grouped():
    """Two of three have the same preprocessing: 0.52 for a is the mean of all, not of groups."""
    padded = PLAIN.model_copy(update={"image_size": (64, 32)})
    lone, pair = Says(0.0001, 0.1, 0.9), Says(0.0001, 0.73, 0.27)
    others = [EnsembleMember(pair, PLAIN), EnsembleMember(pair, PLAIN)]
    assert (Predictor(lone, padded, NAMES, others=others)(picture()).labels == 1).all()
    fewer = Predictor(lone, padded, NAMES, others=others[:1])
    assert (fewer(picture()).labels == 2).all()


def test_networks_of_several_sizes_answer_on_the_case_s_own_grid():
    torch.manual_seed(0)
    sizes = [PLAIN.model_copy(update={"image_size": size}) for size in ((32, 32), (64, 96))]
    models = [Mixed().eval(), Mixed().eval()]
    both = Predictor(models[0], sizes[0], NAMES, others=[EnsembleMember(models[1], sizes[1])])
    expected = 0
    for model, p in zip(models, sizes, strict=True):
        unit = p.unit_slices(picture()[None, None], (0.0, 255.0))
        with torch.no_grad():
            probability = model(p.standardise(torch.from_numpy(unit))).softmax(1).numpy()
        expected = expected + p.invert(probability, (40, 50))
    labels = both(picture()).labels
    assert (labels == expected.argmax(1)).mean() >= 0.999
    with pytest.raises(ConfigError, match="have no labels in common"):
        both.segment_both_ways([])
    turned = sizes[1].model_copy(update={"orientation": "LPS"})
    with pytest.raises(ConfigError, match="slices cut as they lie and along LPS"):
        Predictor(models[0], sizes[0], NAMES, others=[EnsembleMember(models[1], turned)])


def write_run(path: Path, seed: int, names=NAMES, channels=1, **training) -> Path:
    torch.manual_seed(seed)
    network = NetworkConfig(
        name="msa2net_pico", encoder=None, num_classes=len(names), in_channels=channels,
        image_size=SIZE,
    )  # fmt: skip
    facts = ModelMetadata(
        network=network,
        label_names=names,
        preprocessing=PLAIN.model_copy(update={"channels": channels}),
        training=training,
    )
    save_run(path, create_model(**network.model_dump()), facts)
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("folds")
    return [
        write_run(folder / "one", 1, flips=["horizontal", "vertical"]),
        write_run(folder / "two", 2, flips=[]),
        write_run(folder / "lesion", 3, names=("background", "lesion")),
        write_run(folder / "colour", 4, channels=3),
    ]


def test_runs_are_loaded_together(runs: list[Path]):
    one, two, lesion, colour = runs
    together = Predictor.load([one, two], "cpu")
    apart = [Predictor.load(run, "cpu") for run in (one, two)]
    by_hand = Predictor(
        apart[0].model, PLAIN, NAMES, others=[EnsembleMember(apart[1].model, PLAIN)]
    )
    found = together(picture()).labels
    assert np.array_equal(found, by_hand(picture()).labels)
    assert not np.array_equal(found, apart[1](picture()).labels)
    with pytest.raises(ConfigError, match="lesion cannot be averaged: their classes are backg"):
        Predictor.load([one, lesion], "cpu")
    with pytest.raises(ConfigError, match="colour cannot be averaged: their channels are 1 and 3"):
        Predictor.load([one, colour], "cpu")
    with pytest.raises(ConfigError, match="no run is named"):
        Predictor.load([])


# --- flips


def test_flips_are_those_of_the_training(runs: list[Path], tmp_path: Path):
    one, two, lesion, _ = runs
    assert Predictor.load(one, "cpu", flips=True).flips == ((-1,), (-2,), (-1, -2))
    assert Predictor.load(one, "cpu").flips == ()
    with pytest.raises(ConfigError, match="two was trained without flips"):
        Predictor.load(two, "cpu", flips=True)
    with pytest.raises(ConfigError, match="does not say whether .* no config.yaml"):
        Predictor.load(lesion, "cpu", flips=True)
    older = write_run(tmp_path / "older", 5)
    settings = {
        "image_size": SIZE,
        "data": {"format": "phantom", "prepared": tmp_path},
        "train": {"epochs": 1, "batch_size": 2, "learning_rate": 0.1},
        "augment": {"vertical_flip": 0.5},
    }
    (older / "config.yaml").write_text(dump_config(Config.model_validate(settings)))
    assert Predictor.load(older, "cpu", flips=True).flips == ((-2,),)


@pytest.mark.parametrize("flips", [((-1,),), ((-2,),), ((-1,), (-2,), (-1, -2))])
def test_a_mirrored_image_has_the_mirrored_answer(flips):
    """With its mirrored copies, any network answers alike whichever way an image is held."""
    torch.manual_seed(0)
    apply = Predictor(Mixed().eval(), PLAIN, NAMES, flips=flips)
    image = picture(shape=SIZE)
    labels = apply(image).labels[0]
    assert len(np.unique(labels)) > 1
    for axes in flips:
        mirrored = apply(np.flip(image, axes)).labels[0]
        assert (np.flip(mirrored, axes) == labels).mean() >= 0.999
    plain = Predictor(apply.model, PLAIN, NAMES)(image).labels[0]
    assert not np.array_equal(plain, labels)


# --- batches and memory


def test_running_out_of_memory_halves_the_batch_and_goes_on():
    torch.manual_seed(0)
    narrow = Narrow(most=3).eval()
    cases = [Case(f"c{n}", picture(n, (n + 1, 20, 30))[None]) for n in range(6)]
    apply = Predictor(narrow, PLAIN, NAMES, batch_slices=16)
    found = [segmentation.labels for segmentation in apply.segment(cases)]
    assert apply.batch_slices == 2
    assert narrow.batches[:3] == [16, 8, 4]  # 16 does not fit, nor 8, nor 4
    assert max(narrow.batches[3:]) == 2
    narrow.most = 99
    for case, labels in zip(cases, found, strict=True):
        assert (Predictor(narrow, PLAIN, NAMES)(case).labels == labels).mean() >= 0.999
    narrow.most = 0
    with pytest.raises(ConfigError, match="a single slice does not fit into the memory of cpu"):
        apply(picture())


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    class Broken(Says):
        def forward(self, image_BCHW: Tensor) -> Tensor:
            raise RuntimeError("no room for doubt")

    with pytest.raises(RuntimeError, match="no room for doubt"):
        Predictor(Broken(0.5, 0.3, 0.2), PLAIN, NAMES)(picture())


def test_the_batch_is_chosen_by_what_slices_take():
    """By hand: 100 for the first, 60 for each more; of 1000 free, 800 hold 40 + 12 × 60."""
    assert largest_batch_size(one=100, several=280, free=1000) == 12
    assert largest_batch_size(one=100, several=280, free=0) == 1
    assert largest_batch_size(one=100, several=100, free=10**9) == LARGEST
    cpu, probed = TorchBackend([EnsembleMember(nn.Identity(), PLAIN)]), pytest.fail
    assert cpu.choose_batch_size(probed, 9 * 256 * 256 * 4, None) == DEFAULT_BATCH
    assert cpu.choose_batch_size(probed, 2**24, None) == 4  # 64 MB of outputs
    assert cpu.choose_batch_size(probed, 2**40, None) == 1
    assert Predictor(Says(0.5, 0.3, 0.2), PLAIN, NAMES).batch_slices == DEFAULT_BATCH
    large = PLAIN.model_copy(update={"image_size": (512, 512)})
    for asked in (None, 16):  # a configuration allows so many, whatever the number of classes
        assert Predictor(Says(0.5, 0.5), large, ("x",) * 144, asked).batch_slices == 1
    assert cpu.choose_batch_size(probed, 2**24, most=3) == 3

    class OnGpu(TorchBackend):
        device = torch.device("cuda")

    # A GPU says what is too much.
    assert OnGpu(cpu.members).choose_batch_size(probed, 2**40, most=7) == 7


@pytest.mark.parametrize("sizes", [(64, 512), (512, 64)])
def test_the_largest_network_of_an_ensemble_bounds_the_batch(sizes):
    first, second = (PLAIN.model_copy(update={"image_size": (one, one)}) for one in sizes)
    names, model = ("x",) * 36, Says(*[1 / 36] * 36)
    others = [EnsembleMember(model, second)]
    assert Predictor(model, first, names, 16, others=others).batch_slices == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_is_measured():
    model = create_model("msa2net_pico", num_classes=3, in_channels=1, image_size=64).cuda().eval()
    p = PLAIN.model_copy(update={"image_size": (64, 64)})
    apply = Predictor(model, p, NAMES)
    assert 1 < apply.batch_slices <= LARGEST
    alone = Predictor(model, p, NAMES, batch_slices=1)(picture(shape=(5, 70, 90))).labels
    assert (apply(picture(shape=(5, 70, 90))).labels == alone).mean() >= 0.99


def test_probabilities_exist_for_a_few_slices_only(monkeypatch):
    """40 slices of 128² in 30 classes would be 79 MB; on the case's own grid are 3 at any time."""
    classes, shape = 30, (40, 128, 128)
    a_slice = classes * 128 * 128 * 4
    sizes: list[int] = []
    on_grid = TorchBackend.on_grid

    def watched(*arguments):
        found = on_grid(*arguments)
        sizes.append(found.nbytes // a_slice)
        return found

    monkeypatch.setattr(TorchBackend, "on_grid", watched)
    model, names = Says(*[1 / classes] * classes), ("x",) * classes
    Predictor(model, PLAIN, names, 16, block_bytes=3 * a_slice + 1)(picture(shape=shape))
    assert sizes == [3, 3, 3, 3, 3, 1] * 2 + [3, 3, 2]


def test_classes_come_some_at_a_time_where_one_slice_of_them_is_too_much(monkeypatch):
    """Of 30 classes never more than 7 lie on a case's own grid, and the labels are the same."""
    classes, size = 30, (96, 80)
    torch.manual_seed(0)
    model = nn.Conv2d(1, classes, 3, padding=1)
    image, names = picture(shape=(5, *size)), ("x",) * classes
    whole = Predictor(model, PLAIN, names, 4)(image).labels
    assert len(np.unique(whole)) > 5
    shapes, alive = [], []
    on_grid = TorchBackend.on_grid

    def watched(*arguments):
        assert not any(earlier() is not None for earlier in alive)
        found = on_grid(*arguments)
        shapes.append(tuple(found.shape[:2]))
        alive.append(weakref.ref(found))
        return found

    monkeypatch.setattr(TorchBackend, "on_grid", watched)
    apply = Predictor(model, PLAIN, names, 4, block_bytes=7 * 4 * math.prod(size) + 1)
    assert np.array_equal(apply(image).labels, whole)
    assert shapes == [(1, 7), (1, 7), (1, 7), (1, 7), (1, 2)] * 5


@pytest.mark.parametrize("shape", [(1, 96, 80), (2, 33, 70)])
def test_rows_come_in_bands_where_one_class_of_a_slice_is_too_much(monkeypatch, shape):
    """As of a picture of 13,300², which took seven gigabytes."""
    torch.manual_seed(0)
    model, names, image = nn.Conv2d(1, 5, 3, padding=1), ("x",) * 5, picture(shape=shape)
    whole = Predictor(model, PLAIN, names, 4)(image).labels
    assert len(np.unique(whole)) > 2
    bands = []
    on_grid = TorchBackend.on_grid

    def watched(*arguments):
        found = on_grid(*arguments)
        bands.append(found.shape[2])
        return found

    monkeypatch.setattr(TorchBackend, "on_grid", watched)
    apply = Predictor(model, PLAIN, names, 4, block_bytes=64 * shape[2] * 5)
    assert np.array_equal(apply(image).labels, whole)
    assert max(bands) == (5 if shape[1] > 80 else 33)


def test_a_volume_is_let_go_before_the_next_is_read():
    """Two long series in memory at once would be one too many."""
    alive: list[weakref.ref] = []
    most = 0

    def cases():
        nonlocal most
        for number in range(4):
            gc.collect()
            most = max(most, sum(ref() is not None for ref in alive))
            image = picture(number, (1, 5, 20, 20))
            alive.append(weakref.ref(image))
            yield Case(f"c{number}", image)
            del image

    apply = Predictor(Says(0.5, 0.3, 0.2), PLAIN, NAMES, batch_slices=4)
    assert sum(1 for _ in apply.segment(cases())) == 4
    assert most == 0


# --- threads and training


def test_threads_get_what_one_alone_gets():
    torch.manual_seed(0)
    apply = Predictor(Mixed().eval(), PLAIN, NAMES, batch_slices=2)
    images = [picture(seed, (3, 20 + seed, 30)) for seed in range(12)]
    alone = [apply(image).labels for image in images]
    with ThreadPoolExecutor(6) as pool:
        together = [found.labels for found in pool.map(apply, images)]
    assert all(map(np.array_equal, alone, together))


def test_one_thread_at_a_time_computes():
    class Watched(Says):
        inside = most = 0

        def forward(self, image_BCHW: Tensor) -> Tensor:
            type(self).inside += 1
            type(self).most = max(type(self).most, type(self).inside)
            threading.Event().wait(0.01)
            type(self).inside -= 1
            return super().forward(image_BCHW)

    apply = Predictor(Watched(0.5, 0.3, 0.2), PLAIN, NAMES)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(apply, [picture()] * 8))
    assert Watched.most == 1


def test_a_network_in_training_goes_on_training():
    """Between two results too: whoever reads them slowly does not leave it in evaluation mode."""
    model = Mixed().train()
    apply = Predictor(model, PLAIN, NAMES, batch_slices=1)
    before = model.layers[1].running_mean.clone()
    for _ in apply.segment([Case("a", picture()[None, None]), Case("b", picture()[None, None])]):
        assert model.training
        assert model.layers[2].training
    assert torch.equal(model.layers[1].running_mean, before)


# --- notes, spacing


def test_a_scan_that_is_cut_across_its_slices_is_noted():
    """Sagittal slices of 1×1 mm, 4 mm apart, for a network of axial ones."""
    axial = PLAIN.model_copy(update={"orientation": "LPS"})
    apply = Predictor(Says(0.5, 0.3, 0.2), axial, NAMES)
    affine = np.array([[0, 0, 4.0, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
    sagittal = Case("s", picture(0, (1, 5, 6, 7)), geometry=Geometry((4.0, 1.0, 1.0), affine))
    assert apply(sagittal).labels.shape == (5, 6, 7)
    note = apply.note(sagittal)
    assert note == (
        "the scan's slices follow one another between left and right, and those the network was "
        "trained on between feet and head: it is cut into slices of that kind, of 1×4 mm pixels"
    )
    assert apply.note(Case("a", picture()[None, None])) is None
    flat = Geometry((1.0, 1.0, 1.0), np.diag([1.0, 0.0, 1.0, 1.0]))
    with pytest.raises(DataError, match="f: the affine .* does not place voxels in space"):
        apply(Case("f", picture(0, (1, 5, 6, 7)), geometry=flat))


@pytest.mark.parametrize("way", ["NIfTI", "DICOM"])
def test_the_note_holds_for_files_which_readers_turn(tmp_path: Path, way: str):
    """A network is trained on the one orientation that all files are turned to."""
    apply = Predictor(Says(0.5, 0.3, 0.2), PLAIN.model_copy(update={"orientation": "LPS"}), NAMES)
    values = np.random.default_rng(0).integers(0, 99, (5, 12, 14)).astype(np.int16)
    notes = {}
    for plane in ("AXIAL", "SAGITTAL", "CORONAL"):
        grid = {"orientation": getattr(dicom_files, plane), "step_mm": 4.0}
        path = tmp_path / plane
        if way == "DICOM":
            dicom_files.save(path, dicom_files.headers(values, **grid))
        else:
            path = tmp_path / f"{plane}.nii.gz"
            dicom_files.save_nifti(path, values, dicom_files.affine(**grid))
        notes[plane] = apply.note(read_path(path))
    assert notes["AXIAL"] is None
    assert "between left and right, and those" in notes["SAGITTAL"]
    assert notes["SAGITTAL"].endswith("of 0.7×4 mm pixels")
    assert "between front and back, and those" in notes["CORONAL"]


def test_an_array_with_a_spacing_lies_in_space(tmp_path: Path):
    apply = Predictor(Says(0.5, 0.3, 0.2), PLAIN, NAMES)
    found = apply(picture(0, (5, 6, 7)), spacing_mm=(3, 0.5, 0.7))
    assert found.geometry.spacing_mm == (3.0, 0.5, 0.7)
    assert found.save(tmp_path / "mask.nii.gz").is_file()
    for wrong in ((0.5, 0.7), (1.0, 0.0, 1.0), (1.0, float("nan"), 1.0)):
        with pytest.raises(DataError, match="is not understood: give three lengths in mm"):
            apply(picture(0, (5, 6, 7)), spacing_mm=wrong)


# --- sharing cases out


@given(st.integers(0, 50), st.integers(1, 9))
def test_each_case_is_in_exactly_one_share(count, world):
    cases = [f"case {n}" for n in range(count)]
    shares = [share_of(cases, rank, world) for rank in range(world)]
    assert sorted(chain(*shares)) == sorted(cases)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_there_is_no_share_for_a_process_that_does_not_exist():
    for rank in (-1, 2):
        with pytest.raises(ConfigError, match="of 2 does not exist"):
            share_of([], rank, 2)


@pytest.mark.parametrize(
    ("environment", "world"),
    [
        ({}, World(0, 1)),
        ({"RANK": "3", "WORLD_SIZE": "4"}, World(3, 4)),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "2", "SLURM_STEP_ID": "0"}, World(1, 2)),
        (
            {
                "SLURM_PROCID": "1",
                "SLURM_NTASKS": "8",
                "SLURM_STEP_NUM_TASKS": "2",
                "SLURM_STEPID": "0",
            },
            World(1, 2),
        ),
        # In the script given to sbatch: one process, which takes all.
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, World(0, 1)),
        # torchrun inside of srun: its own numbers count.
        (
            {
                "RANK": "5",
                "WORLD_SIZE": "8",
                "SLURM_PROCID": "1",
                "SLURM_NTASKS": "2",
                "SLURM_STEP_ID": "0",
            },
            World(5, 8),
        ),
    ],
)
def test_the_environment_says_which_process_this_is(environment, world):
    assert world_from_environment(environment) == world


@pytest.mark.parametrize(
    "environment",
    [
        {"RANK": "1"},
        {"WORLD_SIZE": "4"},
        {"RANK": "one", "WORLD_SIZE": "4"},
        {"RANK": "-1", "WORLD_SIZE": "4"},
        {"SLURM_PROCID": "1", "SLURM_STEP_ID": "0"},
    ],
)
def test_half_an_environment_is_refused(environment):
    with pytest.raises(ConfigError, match="both must be numbers: start with torchrun or srun"):
        world_from_environment(environment)


def test_a_rank_beyond_the_world_is_refused():
    with pytest.raises(ConfigError, match="RANK is 4 and WORLD_SIZE is 4; ranks count from 0"):
        world_from_environment({"RANK": "4", "WORLD_SIZE": "4"})
