"""How many epochs of a training a machine does in a given time, measured before it begins.

Axes: B batch, C channels; h, w are rows and columns of the network's input.
"""

import math

import torch

from msa2net.benchmark.timing import measure
from msa2net.config import Config
from msa2net.data.prepared.store import Store
from msa2net.inference.run_folder import choose_device
from msa2net.losses import create_loss
from msa2net.training.setup import create_network, create_preprocessing, supervise
from msa2net.training.task import choose_precision, create_optimizer

STEPS = 5  # that are measured, after one to warm up; the middle one counts


def step_seconds(config: Config, store: Store, device: str = "auto") -> float:
    """Measure a step of this training on noise: forward, loss, backward, optimiser.

    Nothing of it stays, and no random number of the training is drawn.

    Args:
        config: of the training.
        store: its data.
        device: cpu, cuda, mps or auto.
    """
    target, classes = choose_device(device), len(store.label_names)
    preprocessing = create_preprocessing(config, store)
    model, _ = create_network(config, store, preprocessing, pretrained=False)
    network, loss_of = supervise(model, create_loss(config.loss), config.train, classes)
    network.to(target).train()
    optimizer = create_optimizer(
        network, config.train, choose_precision(config.train.precision, target)
    )
    draw = torch.Generator().manual_seed(0)
    size = config.train.batch_size, store.channels, *config.image_size
    image_BChw = torch.randn(size, generator=draw).to(target)
    label_Bhw = torch.randint(classes, (size[0], *size[2:]), generator=draw).to(target)

    def step() -> None:
        loss = loss_of(network(image_BChw), label_Bhw)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    cuda = [target] if target.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda), torch.enable_grad():
        return measure(step, STEPS, target).median


def epochs_within(
    seconds: float, step: float, steps_per_epoch: int, further_steps: int, most: int, least: int
) -> int:
    """Return the number of epochs that fit into a time.

    Args:
        seconds: the time.
        step: seconds of a step.
        steps_per_epoch: of the training.
        further_steps: as many take as long as what follows the training.
        most: epochs that are wanted.
        least: epochs without which nothing is worth while.
    """
    fitting = (seconds / step - further_steps) / steps_per_epoch
    return max(least, min(most, math.floor(fitting)))
