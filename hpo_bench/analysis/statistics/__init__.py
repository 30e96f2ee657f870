"""Statistics of repetitions: intervals, distributions, the best of groups, pairs.

In all of them a repetition that failed counts as worse than every other."""
