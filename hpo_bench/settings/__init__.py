"""What is asked for: from overrides in Hydra's grammar to frozen, checked values."""
