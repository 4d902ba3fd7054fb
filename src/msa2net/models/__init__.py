"""Networks: `registry.create_model` builds any of them by name."""
