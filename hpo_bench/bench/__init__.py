"""Measuring speed: a clear sequential reference, and ratios against it in one process on one
machine.
"""
