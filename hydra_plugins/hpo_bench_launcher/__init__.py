"""Hydra finds the launcher in here."""

from .launcher import HpoBenchLauncher

__all__ = ["HpoBenchLauncher"]
