"""Networks that travel: run folders as files that other software runs."""
