"""From files to cases, from cases to a store, from a store to training samples."""
