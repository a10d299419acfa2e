"""Convolution stages of the V-Nets. Attribute names and indices are those of the published checkpoints."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..config import Triple


class ConvStage(nn.Module):
    """``count`` units of convolution (3x3x3, bias) - BatchNorm - ReLU, without residual connection.

    slope: here and below, of the ReLU where its input is negative; 0 in the paper.
    """

    def __init__(self, count: int, in_channels: int, out_channels: int, slope: float = 0.0) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index in range(count):
            layers += _normalised(
                nn.Conv3d(in_channels if index == 0 else out_channels, out_channels, 3, padding=1), out_channels, slope
            )
        self.conv = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, x, y, z] -> [B, out, x, y, z]."""
        return self.conv(x)


class ChannelDropout(nn.Module):
    """Dropout of whole channels, as ``nn.Dropout3d``, which can draw from a generator of its own.

    generator: None is PyTorch's own; otherwise it must be on the device of the input.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.p = probability
        self.generator: torch.Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, x, y, z] -> the same shape."""
        if not self.training or self.p == 0:
            return x
        kept = torch.empty(x.shape[:2] + (1, 1, 1), dtype=x.dtype, device=x.device)
        return x * kept.bernoulli_(1 - self.p, generator=self.generator).div_(1 - self.p)


class Downsampling(nn.Module):
    """Strided convolution - BatchNorm - ReLU; kernel and stride are equal, axes of stride 1 keep their size."""

    def __init__(self, in_channels: int, out_channels: int, stride: Triple, slope: float = 0.0) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            *_normalised(nn.Conv3d(in_channels, out_channels, stride, stride=stride), out_channels, slope)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, x, y, z] -> [B, out, x / stride, ...]."""
        return self.conv(x)


class TransposedUpsampling(nn.Module):
    """Upsampling of sub-model v: transposed convolution - BatchNorm - ReLU."""

    def __init__(self, in_channels: int, out_channels: int, stride: Triple, slope: float = 0.0) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            *_normalised(nn.ConvTranspose3d(in_channels, out_channels, stride, stride=stride), out_channels, slope)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, x, y, z] -> [B, out, x * stride, ...]."""
        return self.conv(x)


class TrilinearUpsampling(nn.Module):
    """Upsampling of sub-model a (paper): trilinear with aligned corners, then 3x3x3 convolution - BatchNorm - ReLU."""

    def __init__(self, in_channels: int, out_channels: int, stride: Triple, slope: float = 0.0) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            _trilinear(stride), *_normalised(nn.Conv3d(in_channels, out_channels, 3, padding=1), out_channels, slope)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, x, y, z] -> [B, out, x * stride, ...]."""
        return self.conv(x)


class LeanTrilinearUpsampling(nn.Module):
    """1x1x1 convolution, then trilinear upsampling - BatchNorm - ReLU: channels are mixed where voxels are few."""

    def __init__(self, in_channels: int, out_channels: int, stride: Triple, slope: float = 0.0) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv3d(in_channels, out_channels, 1),
            _trilinear(stride),
            nn.BatchNorm3d(out_channels),
            _activation(slope),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, x, y, z] -> [B, out, x * stride, ...]."""
        return self.conv(x)


def _normalised(convolution: nn.Module, channels: int, slope: float) -> list[nn.Module]:
    return [convolution, nn.BatchNorm3d(channels), _activation(slope)]


def _activation(slope: float) -> nn.Module:
    return nn.LeakyReLU(slope, inplace=True) if slope > 0 else nn.ReLU(inplace=True)


def _trilinear(stride: Triple) -> nn.Upsample:
    return nn.Upsample(scale_factor=tuple(map(float, stride)), mode="trilinear", align_corners=True)
