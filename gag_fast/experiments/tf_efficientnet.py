"""EfficientNet-B4 as TensorFlow trains it, on torchvision's modules, with timm's parameter names.

The published weights "tf_efficientnet_b4_ns" and all that was fine-tuned from them expect two
things of TensorFlow: "SAME" padding, which for a stride of 2 puts the odd pixel on the right and at
the bottom, and a BatchNorm epsilon of 1e-3. torchvision's efficientnet_b4 differs in these
two only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional as F

_BN_EPSILON = 1e-3


class SameConv2d(nn.Conv2d):
    """A strided convolution with TensorFlow's "SAME" padding: ceil(size / stride) outputs."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[B,C,H,W]` -> `[B,C',ceil(H/stride),ceil(W/stride)]`."""
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        height, width = (
            max((-(-size // stride) - 1) * stride + kernel - size, 0) for size in x.shape[-2:]
        )
        x = F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def tf_efficientnet_b4(num_classes: int) -> nn.Module:
    """EfficientNet-B4 with random weights; `features.7` is its last stage (timm's `blocks.6`)."""
    from torchvision.models import efficientnet_b4

    module = efficientnet_b4(weights=None, num_classes=num_classes)
    for parent in module.modules():
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                child.eps = _BN_EPSILON
            # With stride 1 and an odd kernel, "SAME" is the symmetric padding that torchvision has.
            elif isinstance(child, nn.Conv2d) and child.stride != (1, 1):
                same = SameConv2d(
                    child.in_channels,
                    child.out_channels,
                    child.kernel_size[0],  # all kernels are square
                    child.stride[0],
                    groups=child.groups,
                    bias=child.bias is not None,
                )
                same.load_state_dict(child.state_dict())
                setattr(parent, name, same)
    return module


# timm's names within a block, by how the block begins: with the depthwise convolution (the first
# stage) or with an expansion before it (all others).
_BLOCKS = {
    "depthwise": {
        "conv_dw": "0.0",
        "bn1": "0.1",
        "se.conv_reduce": "1.fc1",
        "se.conv_expand": "1.fc2",
        "conv_pw": "2.0",
        "bn2": "2.1",
    },
    "expand": {
        "conv_pw": "0.0",
        "bn1": "0.1",
        "conv_dw": "1.0",
        "bn2": "1.1",
        "se.conv_reduce": "2.fc1",
        "se.conv_expand": "2.fc2",
        "conv_pwl": "3.0",
        "bn3": "3.1",
    },
}
_OUTSIDE = {
    "conv_stem": "features.0.0",
    "bn1": "features.0.1",
    "conv_head": "features.8.0",
    "bn2": "features.8.1",
    "classifier": "classifier.1",
}


def from_timm_names(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state dict with timm's (and geffnet's) names -> the same with torchvision's.

    Other keys stay as they are; the caller reports them.
    """
    return {_rename(key): value for key, value in state.items()}


def _rename(key: str) -> str:
    module, _, parameter = key.rpartition(".")
    if module in _OUTSIDE:
        return f"{_OUTSIDE[module]}.{parameter}"
    match = re.fullmatch(r"blocks\.(\d+)\.(\d+)\.(.+)", module)
    if match:
        stage, place = int(match[1]), match[2]
        part = _BLOCKS["depthwise" if stage == 0 else "expand"].get(match[3])
        if part:
            return f"features.{stage + 1}.{place}.block.{part}.{parameter}"
    return key
