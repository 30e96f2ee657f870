"""Many runs: what an experiment consists of, what it takes, and carrying it out."""
