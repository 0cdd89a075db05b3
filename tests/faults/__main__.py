"""Do faults to runs and count what comes of it.

    python -m tests.faults [FAMILY ...] [--quick | --share 0.2] [--seed N] [--table FILE.md]

Families are done one after the other; each outcome that is not as expected is a line, and the table
stands at the end. Exit status 1 if anything was lost, double, silent, hanging or not survived.
`mutants-of-ours` is no family of faults: it breaks our own code and shows that a test fails of it.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.faults import sabotage
from tests.faults.families import FAMILIES, outcomes
from tests.faults.outcomes import Outcome, table, versions
from tests.faults.truth import Go

BEGIN, END = "<!-- the table of the campaign -->", "<!-- its end -->"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    own = "mutants-of-ours"
    parser.add_argument("families", nargs="*", metavar="FAMILY", help=f"of {', '.join(FAMILIES)}")
    parser.add_argument("--quick", action="store_true", help="few trials of each")
    parser.add_argument("--share", type=float, default=1.0, help="of the times that each is tried")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--table", type=Path, help="Markdown file whose table is replaced")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # processes and mounts go with us
    if unknown := set(arguments.families) - {*FAMILIES, own}:
        parser.error(f"no family {sorted(unknown)[0]!r} (known: {', '.join(FAMILIES)}, {own})")
    families = [name for name in arguments.families or FAMILIES if name != own]
    done: list[Outcome] = []
    part = f"{arguments.share:.0%} of a" if arguments.share < 1 else "a whole"
    how = f"{'a quick' if arguments.quick else part} go, seed {arguments.seed}"
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        go = Go(Path(folder), arguments.seed, arguments.quick, arguments.share)
        for name in families:
            before, began = len(done), time.monotonic()
            for outcome in outcomes(name, go):
                done.append(outcome)
                if not outcome.held:
                    print(f"{outcome.fault}: {outcome.why}", flush=True)
            print(
                f"== {name}: {len(done) - before} in {time.monotonic() - began:.0f} s", flush=True
            )
            minutes = (time.monotonic() - start) / 60
            said = f"{versions()}; {how}, {minutes:.0f} minutes.\n\n{table(done)}"
            if arguments.table:
                _replace(arguments.table, said)
    if families:
        print(f"\n{said}")
    good = all(outcome.held for outcome in done)
    if own in arguments.families:
        good &= sabotage.all_caught()
    return 0 if good else 1


def _replace(file: Path, text: str) -> None:
    """Put a table in the place of the last one."""
    before, _, rest = file.read_text().partition(BEGIN)
    file.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    sys.exit(main())
