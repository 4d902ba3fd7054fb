"""`python -m msa2net` is the command line."""

from msa2net.cli import main

if __name__ == "__main__":
    main()
