"""Measuring speed: a clear sequential reference, and ratios against it.

Both are measured in one process on one machine."""
