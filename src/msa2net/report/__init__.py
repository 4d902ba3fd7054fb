"""One self-contained HTML page per run, and the pictures on it."""
