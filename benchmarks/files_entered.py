"""Name the package's files that a command enters: `python benchmarks/files_entered.py COMMAND …`.

`python benchmarks/files_entered.py evaluate MASKS LABELS` runs that command in this process and
prints each of our files of which a function was called, with the calls: the fewer there are, the
sooner a reader has followed the command from one end to the other. Importing counts for nothing.
"""

import collections
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import msa2net
from msa2net.cli import main as command_line

PACKAGE = str(Path(msa2net.__file__).parent)


def main() -> None:
    """Run the command and print what it entered."""
    calls: collections.Counter[str] = collections.Counter()

    def note(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(PACKAGE) and code.co_name != "<module>":
            calls[code.co_filename] += 1

    sys.argv = ["msa2net", *sys.argv[1:]]
    threading.setprofile(note)
    sys.setprofile(note)
    try:
        command_line()
    except SystemExit as leaving:
        code = leaving.code
    else:
        code = 0
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    for name, count in sorted(calls.items()):
        print(f"{count:9,}  {Path(name).relative_to(PACKAGE)}")
    print(f"{len(calls)} files entered; exit code {code}")


if __name__ == "__main__":
    main()
