"""Hydra finds the launcher and the sweeper in here."""

from .launcher import HpoBenchLauncher
from .sweeper import HpoBenchSweeper

__all__ = ["HpoBenchLauncher", "HpoBenchSweeper"]
