"""Datasets: one family a file, each a frozen source that loads a table."""
