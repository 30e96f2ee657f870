"""Statistics of repetitions that may have failed."""
