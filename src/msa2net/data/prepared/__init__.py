"""Data prepared once: arrays on disk, what is known of each case, and slices to train on."""
