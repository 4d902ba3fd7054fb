"""Train MSA²Net on Synapse with the flags of the paper's README; `python train.py --help`."""

from msa2net.cli import run_command
from msa2net.cli.paper import train_as_published

if __name__ == "__main__":
    run_command(train_as_published)
