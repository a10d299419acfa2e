"""Cross-sample Mutual Attention (CMA): voxels of a sample attend to each other, then samples at each voxel."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class TransformerLayer(nn.Module):
    """One post-norm transformer encoder layer; the attribute's name is that of the published checkpoints."""

    def __init__(self, channels: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.encoder_layers = nn.TransformerEncoderLayer(channels, heads, 4 * channels, dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """[sequence, batch, channels] -> the same shape."""
        return self.encoder_layers(tokens)

    @torch.no_grad()
    def begin_as_identity(self, mean: float, std: float) -> None:
        """Let both residual branches begin at zero, and the last norm with the input's ``mean`` and ``std``.

        What remains of the layer is a normalisation of each token that keeps the scale of its input on average.
        """
        layer = self.encoder_layers
        for branch in (layer.self_attn.out_proj, layer.linear2):
            branch.weight.zero_()
            branch.bias.zero_()
        for norm, weight, bias in ((layer.norm1, 1.0, 0.0), (layer.norm2, std, mean)):
            norm.weight.fill_(weight)
            norm.bias.fill_(bias)


def cross_sample_attention(
    feature: Tensor, intra: TransformerLayer, inter: TransformerLayer, *, alone: bool = False
) -> Tensor:
    """Apply both attentions to ``feature`` [B, C, x, y, z] and return the same shape.

    ``alone``: in the second attention each sample is its own group instead of all samples of the batch.
    """
    batch, channels, *size = feature.shape
    tokens = intra(feature.flatten(2).permute(2, 0, 1))  # voxels are the sequence
    if alone:
        tokens = inter(tokens.reshape(1, -1, channels))
    else:
        tokens = inter(tokens.transpose(0, 1)).transpose(0, 1)  # samples are the sequence
    return tokens.reshape(-1, batch, channels).permute(1, 2, 0).reshape(batch, channels, *size)
