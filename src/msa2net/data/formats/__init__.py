"""Data formats: how a raw data set becomes a list of cases; `registry` lists them."""
