"""What is wrong with a prepared data set: `dataset.check_store` looks at everything in turn."""
