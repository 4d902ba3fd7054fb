"""Score MSA²Net on Synapse with the flags of the paper's README; `python test.py --help`."""

from msa2net.cli import run_command
from msa2net.cli.paper import evaluate_as_published

if __name__ == "__main__":
    run_command(evaluate_as_published)
