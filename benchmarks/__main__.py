"""Run the benchmark's parts and write results.md, results.json and results.png.

    python -m benchmarks [layer] [pipeline] [loading] [growth] [scheduler] [--quick] [--full]

Every contestant works in processes of its own: one that fails, or is not installed, is a line with
its reason in the table and stops nobody else.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from benchmarks import growth, layer, loading, machine, pipeline, report, scheduler
from benchmarks.scale import FULL, NORMAL, QUICK

PARTS = {
    "layer": layer,
    "pipeline": pipeline,
    "loading": loading,
    "growth": growth,
    "scheduler": scheduler,
}

ENVIRONMENT = {
    # as wsi-norm sets for its own workers, here for everybody: see docs/architecture.md, Memory
    "MALLOC_TRIM_THRESHOLD_": str(1 << 28),
    "MALLOC_MMAP_THRESHOLD_": str(1 << 28),
    **{f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS", "NUMBA")},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all")
    parser.add_argument("--quick", action="store_true", help="small sizes, to try it out")
    parser.add_argument("--full", action="store_true", help="a million no-op tasks (an hour)")
    parser.add_argument("--output", type=Path, default=Path("bench"))
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"no part {sorted(unknown)[0]!r} (known: {', '.join(PARTS)})")
    scale = QUICK if arguments.quick else FULL if arguments.full else NORMAL
    output = arguments.output.absolute()
    output.mkdir(parents=True, exist_ok=True)
    os.environ.update(ENVIRONMENT)  # of the processes that are started from here
    results = {"machine": machine.facts(), "scale": scale.name}
    for name in arguments.parts or PARTS:
        print(f"== {name}", flush=True)
        results[name] = PARTS[name].measure(scale, output)
        report.write(results, output)
    print(output / "results.md")


if __name__ == "__main__":
    main()
