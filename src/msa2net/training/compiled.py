"""A training step with a compiled network: fused kernels instead of one operation after another.

Axes: B batch, C channels; h, w are rows and columns of the network's input.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from msa2net.compat import unfuse_attention


class CompiledStep:
    """From images and labels to their loss; compiled at the first batch, for its device.

    On a GPU network and loss are one, and its kernels are recorded as CUDA graphs: started one by
    one, thousands of small kernels take the host longer than the GPU. On a CPU the loss stays as it
    is, written by hand for its caches.

    The network's attention is unfused from here on, in validation too: so this must be there before
    one that was interrupted is repeated, or it would round otherwise. In MaxViT torch 2.11 would
    hand its fused kernel, in the backward pass, the relative position bias in an order in memory
    that it refuses ("last dimension must be contiguous").

    Args:
        network: (B, C, h, w) → what `loss` takes.
        loss: of that and labels (B, h, w).
        graphs: whether gradients may lie in memory that the next step uses again. That rules out
            several parts of a batch, and several processes: then the network alone is compiled.

    Attributes:
        recorded: whether it consists of CUDA graphs, which keep their memory.
    """

    def __init__(self, network: nn.Module, loss: nn.Module, *, graphs: bool) -> None:
        self.network, self.loss, self.graphs = network, loss, graphs
        self.recorded = False
        self._call: Callable[[Tensor, Tensor], Tensor] | None = None
        unfuse_attention(network)

    def __call__(self, image_BChw: Tensor, label_Bhw: Tensor) -> Tensor:
        """Return the loss."""
        if self._call is None:
            self._call = self._compile(image_BChw.device)
        return self._call(image_BChw, label_Bhw).clone()  # the next step's is written over it

    def _compile(self, device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
        self.recorded = device.type == "cuda" and self.graphs
        if self.recorded:
            return torch.compile(self._plain, dynamic=False, mode="reduce-overhead")
        forward = torch.compile(self.network.forward, dynamic=False)
        return lambda image_BChw, label_Bhw: self.loss(forward(image_BChw), label_Bhw)

    def _plain(self, image_BChw: Tensor, label_Bhw: Tensor) -> Tensor:
        loss: Tensor = self.loss(self.network(image_BChw), label_Bhw)
        return loss
