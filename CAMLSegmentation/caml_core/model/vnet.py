"""Encoder and decoder of a V-Net: 1-2-3-3-3 and 3-3-2-1 convolutions a stage, skips that are added."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from torch import Tensor, nn

from ..config import Triple
from .blocks import ChannelDropout, ConvStage, Downsampling
from .recomputation import recomputed

Strides = tuple[Triple, Triple, Triple, Triple]
Modules = tuple[nn.Module, ...]


class Features(NamedTuple):
    """Encoder features from full resolution (``one``) to the deepest (``five``), each [B, C, x, y, z]."""

    one: Tensor
    two: Tensor
    three: Tensor
    four: Tensor
    five: Tensor


class Encoder(nn.Module):
    """Five stages; channels double from ``filters`` to 16 x ``filters``.

    ``recompute``: how many of the shallow stages are computed again in the backward pass (0 to 3).
    """

    recompute = 0

    def __init__(self, in_channels: int, filters: int, strides: Strides, dropout: float, slope: float = 0.0) -> None:
        super().__init__()
        n = filters
        self.block_one = ConvStage(1, in_channels, n, slope)
        self.block_one_dw = Downsampling(n, 2 * n, strides[0], slope)
        self.block_two = ConvStage(2, 2 * n, 2 * n, slope)
        self.block_two_dw = Downsampling(2 * n, 4 * n, strides[1], slope)
        self.block_three = ConvStage(3, 4 * n, 4 * n, slope)
        self.block_three_dw = Downsampling(4 * n, 8 * n, strides[2], slope)
        self.block_four = ConvStage(3, 8 * n, 8 * n, slope)
        self.block_four_dw = Downsampling(8 * n, 16 * n, strides[3], slope)
        self.block_five = ConvStage(3, 16 * n, 16 * n, slope)
        self.dropout = ChannelDropout(dropout)

    def forward(self, x: Tensor) -> Features:
        """[B, in_channels, x, y, z] -> the five features."""
        one, two, three, four = self.shallow(x)
        return Features(one, two, three, four, self.deepest(four))

    def shallow(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Stages one to four."""
        one = self._stage(1, lambda x: self.block_one(x), (self.block_one,), x)
        modules = (self.block_one_dw, self.block_two)
        two = self._stage(2, lambda one: self.block_two(self.block_one_dw(one)), modules, one)
        modules = (self.block_two_dw, self.block_three)
        three = self._stage(3, lambda two: self.block_three(self.block_two_dw(two)), modules, two)
        return one, two, three, self.block_four(self.block_three_dw(three))

    def _stage(
        self, depth: int, function: Callable[..., Tensor], modules: Modules, *inputs: Tensor, draws: bool = False
    ) -> Tensor:
        return recomputed(function, modules, *inputs, draws=draws) if depth <= self.recompute else function(*inputs)

    def deepest(self, four: Tensor) -> Tensor:
        """Stage five, with channel dropout."""
        return self.dropout(self.block_five(self.block_four_dw(four)))


class UpsamplingFactory(Protocol):
    """Makes the upsampling unit of a decoder stage."""

    def __call__(self, in_channels: int, out_channels: int, stride: Triple, slope: float) -> nn.Module: ...  # noqa: D102


class Decoder(nn.Module):
    """Four upsampling stages; gives logits and the last feature, which the projection heads see.

    ``recompute``: as in ``Encoder``.
    """

    recompute = 0

    def __init__(
        self,
        upsampling: UpsamplingFactory,
        classes: int,
        filters: int,
        strides: Strides,
        dropout: float,
        slope: float = 0.0,
    ) -> None:
        super().__init__()
        n = filters
        self.block_five_up = upsampling(16 * n, 8 * n, strides[3], slope)
        self.block_six = ConvStage(3, 8 * n, 8 * n, slope)
        self.block_six_up = upsampling(8 * n, 4 * n, strides[2], slope)
        self.block_seven = ConvStage(3, 4 * n, 4 * n, slope)
        self.block_seven_up = upsampling(4 * n, 2 * n, strides[1], slope)
        self.block_eight = ConvStage(2, 2 * n, 2 * n, slope)
        self.block_eight_up = upsampling(2 * n, n, strides[0], slope)
        self.block_nine = ConvStage(1, n, n, slope)
        self.dropout = ChannelDropout(dropout)
        self.out_conv = nn.Conv3d(n, classes, 1)

    def forward(self, features: Features) -> tuple[Tensor, Tensor]:
        """Return (logits [B, classes, x, y, z], embedding [B, filters, x, y, z], taken after the dropout)."""
        x = self.block_six(self.block_five_up(features.five) + features.four)
        x = self._stage(3, self.block_six_up, self.block_seven, x, features.three)
        x = self._stage(2, self.block_seven_up, self.block_eight, x, features.two)
        x = self._stage(1, self.block_eight_up, self.block_nine, x, features.one)
        embedding = self.dropout(x)
        return self.out_conv(embedding), embedding

    def _stage(self, depth: int, up: nn.Module, block: nn.Module, x: Tensor, skip: Tensor) -> Tensor:
        def stage(x: Tensor, skip: Tensor) -> Tensor:
            return block(up(x) + skip)

        return recomputed(stage, (up, block), x, skip) if depth <= self.recompute else stage(x, skip)
