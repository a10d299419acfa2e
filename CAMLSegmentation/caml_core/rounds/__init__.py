"""Rounds: a training with all that is needed to judge it, in one folder and one process that can be resumed."""
