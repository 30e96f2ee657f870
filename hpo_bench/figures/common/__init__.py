"""Machinery that the figures share: style, points, panels, artefacts.

Not a figure itself, so not discovered as one.
"""
