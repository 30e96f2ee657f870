"""What stored runs say: which are comparable, with what statistics, in which tables."""
