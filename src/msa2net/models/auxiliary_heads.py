"""Deep supervision: auxiliary heads, one for each level of the decoder, while training.

Axes: B batch, C channels, H rows, W columns, K classes.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from msa2net.models.base import Network


class SupervisedNetwork(nn.Module):
    """A network with a 1×1 convolution on each level of its decoder but the last.

    The last level has the network's own head, the only one that inference uses: what is saved as
    the network is `model`, without `heads`.

    Args:
        model: the network.
        num_classes: channels of the logits.
    """

    def __init__(self, model: Network, num_classes: int) -> None:
        super().__init__()
        self.model = model
        self.heads = nn.ModuleList(_head(width, num_classes) for width in model.widths[:-1])

    def forward(self, image_BCHW: Tensor) -> tuple[Tensor, ...]:
        """Return logits (B, K, H, W) of every level, coarse to fine, at the image's full size."""
        *coarse, last = self.model.decode(image_BCHW)
        size = image_BCHW.shape[-2:]
        auxiliary = [
            F.interpolate(head(x), size, mode="bilinear")
            for head, x in zip(self.heads, coarse, strict=True)
        ]
        return *auxiliary, self.model.head(last)


def _head(width: int, num_classes: int) -> nn.Conv2d:
    head = nn.Conv2d(width, num_classes, 1)
    nn.init.xavier_uniform_(head.weight)
    if head.bias is not None:
        nn.init.zeros_(head.bias)
    return head
