"""Multi-pass rivals: each repetition is a whole search, its trials are rows of batches of the
one-pass engine.
"""
