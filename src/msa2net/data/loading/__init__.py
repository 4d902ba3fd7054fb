"""Training samples: read at random, augmented, in an epoch's order."""
