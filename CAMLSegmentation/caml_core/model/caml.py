"""The network of CAML: sub-model v, sub-model a with cross-sample attention, and their heads."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from .attention import TransformerLayer, cross_sample_attention
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

            four = self._stage(2, attend, (), four)
        return Features(one, two, three, four, self.deepest(four))


class CamlNetwork(nn.Module):
    """Both sub-models. State-dict names and order are those of the published checkpoints.

    The sides of every input must be divisible by the product of the strides along that axis.
    """

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

    def recompute(self, stages: int) -> None:
        """Compute the features of the first ``stages`` (0 to 3) again in the backward pass instead of keeping them."""
        for part in (self.encoder1, self.encoder2, self.decoder1, self.decoder2):
            part.recompute = stages

    def forward(self, x: Tensor, *, alone: bool = False) -> CamlOutput:
        """Run both sub-models on ``x`` [B, C, x, y, z]. ``alone``: see ``AttentiveEncoder.forward``."""
        logits_v, embedding_v = self.decoder1(self.encoder1(x))
        logits_a, embedding_a = self.decoder2(self.encoder2(x, alone))
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
