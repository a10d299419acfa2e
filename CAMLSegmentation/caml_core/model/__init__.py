"""The two sub-models of CAML. ``build_network`` alone knows sizes."""

from .build import build_network
from .caml import CamlNetwork, CamlOutput

__all__ = ["CamlNetwork", "CamlOutput", "build_network"]
