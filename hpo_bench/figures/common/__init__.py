"""Machinery that the figures share: style, points, panels, artefacts.

It is no figure, so it is not discovered as one."""
