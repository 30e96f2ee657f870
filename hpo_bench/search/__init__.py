"""Multi-pass rivals of one-pass methods.

Each repetition is a whole search, and its trials are rows of the one-pass engine."""
