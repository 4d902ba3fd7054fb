"""Order and augmentation depend on (seed, epoch, index) only."""

import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from msa2net.config import AugmentConfig, DataConfig
from msa2net.data.loading.augment import Augmentation, derive_seed
from msa2net.data.loading.sampler import EpochSampler
from msa2net.data.loading.slices import SliceDataset
from msa2net.data.phantom.files import write_phantom
from msa2net.data.prepared.prepare import prepare
from msa2net.data.prepared.slice_files import build_slices
from msa2net.data.preprocessing import Preprocessing

SEED, BATCH = 11, 4
PREPROCESSING = Preprocessing(
    channels=3, image_size=(32, 32), fit="stretch", intensity="fixed", low=0, high=255
)
AUGMENT = AugmentConfig(
    horizontal_flip=0.5,
    vertical_flip=0.5,
    affine=0.9,
    shear_degrees=5,
    brightness=0.3,
    contrast=0.3,
    saturation=0.3,
    noise_std=0.1,
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> SliceDataset:
    root = tmp_path_factory.mktemp("order")
    write_phantom("images", root / "raw", cases=20)
    data = DataConfig(format="images", root=root / "raw", prepared=root / "prepared")
    arrays = build_slices(prepare(data), PREPROCESSING, ("train",))
    return SliceDataset(arrays, PREPROCESSING, Augmentation(AUGMENT), SEED)


def batches(
    dataset: SliceDataset, epoch: int, batch: int = BATCH, rank=0, world=1, start=(0, 0), **loader
) -> list[dict]:
    """The batches of one epoch, as one of `world` processes gets them."""
    sampler = EpochSampler(len(dataset), SEED, rank=rank, world=world, start=start)
    sampler.set_epoch(epoch)
    return list(DataLoader(dataset, batch, sampler=sampler, drop_last=True, **loader))


def same(one: dict, two: dict) -> bool:
    return one["case"] == two["case"] and all(
        torch.equal(one[name], two[name]) for name in ("image", "label", "slice")
    )


@pytest.fixture(scope="module")
def alone(dataset: SliceDataset) -> list[dict]:
    """What one process without workers gets in epoch 3."""
    return batches(dataset, epoch=3)


@pytest.mark.parametrize(("workers", "start"), [(1, "fork"), (8, "fork"), (1, "spawn")])
def test_workers_change_nothing(dataset: SliceDataset, alone, workers: int, start: str):
    torch.rand(3)  # whatever was drawn before
    found = batches(dataset, 3, num_workers=workers, multiprocessing_context=start)
    assert len(found) == len(alone) > 2
    assert all(map(same, found, alone))


@pytest.mark.slow
@pytest.mark.parametrize("start", ["spawn", "forkserver"])
def test_many_workers_however_started_change_nothing(dataset: SliceDataset, alone, start: str):
    found = batches(dataset, 3, num_workers=4, multiprocessing_context=start)
    assert all(map(same, found, alone))


@pytest.mark.parametrize("world", [2, 4])
def test_processes_share_one_order(dataset: SliceDataset, alone, world: int):
    """Batch k of all processes together holds what batch k of one alone does."""
    shares = [batches(dataset, 3, BATCH // world, rank=rank, world=world) for rank in range(world)]
    assert {len(share) for share in shares} == {len(alone)}
    for k, whole in enumerate(alone):
        # Process r holds every world-th sample from the r-th on.
        together = torch.stack([share[k]["image"] for share in shares], dim=1).flatten(0, 1)
        assert torch.equal(together, whole["image"])


@pytest.mark.parametrize("done", [1, 2])
def test_the_rest_of_an_epoch_is_its_end(dataset: SliceDataset, alone, done: int):
    rest = batches(dataset, 3, start=(3, done * BATCH))
    assert all(map(same, rest, alone[done:]))
    assert len(rest) == len(alone) - done
    following = batches(dataset, 4, start=(3, done * BATCH))
    assert all(map(same, following, batches(dataset, 4)))


def test_every_epoch_has_an_order_and_changes_of_its_own(dataset: SliceDataset):
    orders = set()
    for epoch in range(20):
        sampler = EpochSampler(len(dataset), SEED)
        sampler.set_epoch(epoch)
        orders.add(tuple(index for _, index in sampler))
    assert len(orders) == 20
    images = [dataset[(epoch, 0)]["image"] for epoch in range(5)]
    for one in range(5):
        for two in range(one):
            assert not torch.equal(images[one], images[two])


@given(
    length=st.integers(1, 60),
    seed=st.integers(0, 2**31),
    epoch=st.integers(0, 1000),
    world=st.integers(1, 5),
    own=st.integers(1, 6),
)
def test_shares_are_a_partition(length: int, seed: int, epoch: int, world: int, own: int):
    """Nobody is seen twice, all processes see as many, and batches agree with one process's."""
    single = EpochSampler(length, seed)
    single.set_epoch(epoch)
    order = [index for _, index in single]
    assert sorted(order) == list(range(length))
    shares = []
    for rank in range(world):
        sampler = EpochSampler(length, seed, rank=rank, world=world)
        sampler.set_epoch(epoch)
        share = [index for _, index in sampler]
        assert len(share) == len(sampler) == length // world
        shares.append(share)
    seen = [index for share in shares for index in share]
    assert len(set(seen)) == len(seen)
    batch = own * world
    for k in range(length // batch):
        together = {index for share in shares for index in share[k * own : (k + 1) * own]}
        assert together == set(order[k * batch : (k + 1) * batch])


def test_a_spawned_worker_gets_no_copy_of_the_slices(dataset: SliceDataset):
    assert len(pickle.dumps(dataset.arrays)) < 5000


def test_augmentation_leaves_the_global_generator_alone(dataset: SliceDataset):
    state = torch.get_rng_state()
    dataset[(0, 0)]
    assert torch.equal(state, torch.get_rng_state())


def test_seeds_are_fixed_for_all_time():
    """By an independent BLAKE2b: `printf '1234 0 0' | b2sum -l 64`, lowest byte first."""
    assert derive_seed(1234, 0, 0) == 8610309683349878882
    assert derive_seed(1, 23) != derive_seed(12, 3) != derive_seed(1, 2, 3)
    assert (
        len({derive_seed(a, b, c) for a in range(20) for b in range(20) for c in range(20)}) == 8000
    )
    assert all(0 <= derive_seed(a, -1) < 2**63 for a in range(50))
