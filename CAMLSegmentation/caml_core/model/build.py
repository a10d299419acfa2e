"""From a NetworkConfig to a network: the one place that knows sizes."""

from __future__ import annotations

from torch import nn

from ..config import NetworkConfig
from .attention import TransformerLayer
from .blocks import LeanTrilinearUpsampling, TransposedUpsampling, TrilinearUpsampling
from .caml import AttentiveEncoder, CamlNetwork
from .vnet import Decoder, Encoder

UPSAMPLING_A = {"conv3": TrilinearUpsampling, "conv1": LeanTrilinearUpsampling}


def build_network(config: NetworkConfig) -> CamlNetwork:
    """Return the network of ``config`` with PyTorch's default initialisation, on the CPU, in training mode."""
    filters, channels = config.base_filters, 8 * config.base_filters
    encoder = (config.in_channels, filters, config.strides, config.dropout, config.negative_slope)
    decoder = (config.classes, filters, config.strides, config.dropout, config.negative_slope)
    return CamlNetwork(
        Encoder(*encoder),
        AttentiveEncoder(
            *encoder,
            intra=TransformerLayer(channels, config.attention_heads, config.attention_dropout),
            inter=TransformerLayer(channels, config.attention_heads, config.attention_dropout),
            evaluation=config.attention_evaluation,
        ),
        Decoder(TransposedUpsampling, *decoder),
        Decoder(UPSAMPLING_A[config.upsampling_a], *decoder),
        (
            _head(filters, config.head_features),
            _head(config.head_features, config.head_features),
            _head(filters, config.head_features),
            _head(config.head_features, config.head_features),
        ),
    )


def _head(in_features: int, out_features: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(in_features, out_features),
        nn.BatchNorm1d(out_features),
        nn.ReLU(),
        nn.Linear(out_features, out_features),
    )
