"""The parts of the module CAML Training."""
