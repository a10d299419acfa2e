"""The network of CAML: sub-model v, sub-model a with cross-sample attention, and their heads."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from .attention import TransformerLayer, cross_sample_attention
from .blocks import ConvStage
from .concurrency import at_once
from .vnet import Decoder, Encoder, Features


class CamlOutput(NamedTuple):
    """Logits [B, classes, x, y, z] and embeddings [B, filters, x, y, z] of both sub-models."""

    logits_v: Tensor
    logits_a: Tensor
    embedding_v: Tensor
    embedding_a: Tensor


class AttentiveEncoder(Encoder):
    """Encoder of sub-model a: CMA follows stage four and feeds the deepest stage as well as the skip."""

    def __init__(
        self,
        *encoder: object,
        intra: TransformerLayer,
        inter: TransformerLayer,
        evaluation: Literal["skip", "alone"],
    ) -> None:
        super().__init__(*encoder)  # type: ignore[arg-type]
        self.intra_attention = intra
        self.inter_attention = inter
        self.evaluation = evaluation

    def forward(self, x: Tensor, alone: bool = False) -> Features:
        """As ``Encoder.forward``; ``alone`` keeps the samples of a training batch from seeing each other."""
        one, two, three, four = self.shallow(x)
        if self.training or self.evaluation == "alone":
            alone = alone or not self.training

            def attend(four: Tensor) -> Tensor:
                return cross_sample_attention(four, self.intra_attention, self.inter_attention, alone=alone)

            four = self._stage(2, attend, (), four, draws=True)
        return Features(one, two, three, four, self.deepest(four))


class CamlNetwork(nn.Module):
    """Both sub-models. State-dict names and order are those of the published checkpoints.

    The sides of every input must be divisible by the product of the strides along that axis.
    ``threads``: on the CPU, ``forward`` runs both sub-models at once, on so many together (below two: in turn).
    """

    threads = 0

    def __init__(
        self,
        encoder_v: Encoder,
        encoder_a: AttentiveEncoder,
        decoder_v: Decoder,
        decoder_a: Decoder,
        heads: tuple[nn.Sequential, nn.Sequential, nn.Sequential, nn.Sequential],
    ) -> None:
        super().__init__()
        self.encoder1 = encoder_v
        self.encoder2 = encoder_a
        self.decoder1 = decoder_v
        self.decoder2 = decoder_a
        self.projection_head1, self.prediction_head1, self.projection_head2, self.prediction_head2 = heads

    def draw_from(self, generator: torch.Generator | None) -> None:
        """Let sub-model v's dropout draw from ``generator``, so that a alone draws from PyTorch's own."""
        self.encoder1.dropout.generator = self.decoder1.dropout.generator = generator

    def recompute(self, stages: int) -> None:
        """Compute the features of the first ``stages`` (0 to 3) again in the backward pass instead of keeping them."""
        for part in (self.encoder1, self.encoder2, self.decoder1, self.decoder2):
            part.recompute = stages

    @torch.no_grad()
    def take_over(self) -> None:
        """Give sub-model a what v has learnt: all of the same shape, and as upsampling the mean of v's.

        A transposed convolution whose stride is its kernel has one matrix for each position within a voxel; their mean
        before trilinear upsampling is its smooth counterpart. Cross-sample attention has no counterpart in v: it begins
        as the pass that changes least, see ``TransformerLayer.begin_as_identity``.
        """
        for target, source in ((self.encoder2, self.encoder1), (self.decoder2, self.decoder1)):
            own = target.state_dict()
            for name, value in source.state_dict().items():
                if name in own and own[name].shape == value.shape:
                    own[name].copy_(value)
        for stage in ("block_five_up", "block_six_up", "block_seven_up", "block_eight_up"):
            _take_over_upsampling(getattr(self.decoder2, stage).conv, getattr(self.decoder1, stage).conv)
        mean, std = moments_after_activation(self.encoder1.block_four)
        self.encoder2.intra_attention.begin_as_identity(mean, std)
        self.encoder2.inter_attention.begin_as_identity(mean, std)

    def forward(self, x: Tensor, *, alone: bool = False) -> CamlOutput:
        """Run both sub-models on ``x`` [B, C, x, y, z]. ``alone``: see ``AttentiveEncoder.forward``."""
        return self.forward_each(x, x, alone=alone)

    def forward_each(self, x_v: Tensor, x_a: Tensor, *, alone: bool = False) -> CamlOutput:
        """As ``forward``, with an input for each sub-model."""
        (logits_v, embedding_v), (logits_a, embedding_a) = at_once(
            lambda: self.decoder1(self.encoder1(x_v)), lambda: self.decoder2(self.encoder2(x_a, alone)), self.threads
        )
        return CamlOutput(logits_v, logits_a, embedding_v, embedding_a)

    def forward_v(self, x: Tensor) -> Tensor:
        """Logits of sub-model v alone, [B, classes, x, y, z]."""
        return self.decoder1(self.encoder1(x))[0]

    def forward_a(self, x: Tensor) -> Tensor:
        """Logits of sub-model a alone, [B, classes, x, y, z]."""
        return self.decoder2(self.encoder2(x))[0]

    def probabilities(self, x: Tensor) -> Tensor:
        """Mean of both sub-models' softmax, float32 [B, classes, x, y, z]."""
        v, a = self.forward_v(x), self.forward_a(x)
        return 0.5 * (torch.softmax(v.float(), 1) + torch.softmax(a.float(), 1))


def _take_over_upsampling(target: nn.Sequential, source: nn.Sequential) -> None:
    """From transposed convolution - BatchNorm - ReLU to 1x1x1 convolution - trilinear - BatchNorm - ReLU."""
    mixing, transposed = target[0], source[0]
    if isinstance(mixing, nn.Conv3d) and isinstance(transposed, nn.ConvTranspose3d):
        mixing.weight.copy_(transposed.weight.mean((2, 3, 4), keepdim=True).transpose(0, 1))
        if mixing.bias is not None and transposed.bias is not None:
            mixing.bias.copy_(transposed.bias)
        target[2].load_state_dict(source[1].state_dict())


def moments_after_activation(stage: ConvStage) -> tuple[float, float]:
    """Mean and standard deviation over all channels that ``stage`` gives, taking each before its ReLU as normal."""
    norm, activation = stage.conv[-2], stage.conv[-1]
    assert isinstance(norm, nn.BatchNorm3d)
    slope = activation.negative_slope if isinstance(activation, nn.LeakyReLU) else 0.0
    mean, std = norm.bias.detach().double(), norm.weight.detach().double().abs().clamp_min(1e-6)
    (above, above_squared), (below, below_squared) = _rectified(mean, std), _rectified(-mean, std)
    first = float((above - slope * below).mean())
    second = float((above_squared + slope**2 * below_squared).mean())
    return first, max(second - first**2, 1e-12) ** 0.5


def _rectified(mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """First and second moment of max(x, 0) for normal x."""
    normal = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(std))
    share, density = normal.cdf(mean / std), torch.exp(normal.log_prob(mean / std))
    return mean * share + std * density, (mean**2 + std**2) * share + mean * std * density
