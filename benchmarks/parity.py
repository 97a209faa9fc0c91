"""How far is FESeq from recorded runs of the authors' implementation?

    python benchmarks/parity.py FILE.npz ...

Prints the largest error of probability, loss and gradients (relative to the largest gradient of the
tensor) for each file and execution. Exit code 1 if a bound is exceeded.
"""

from __future__ import annotations

import sys
from pathlib import Path

from harness import arguments, finish
from recordings import GRADIENT_BOUND, OUTPUT_BOUND, compare, read_recording


def main() -> int:
    """Compare each file and report."""
    parser = arguments(__doc__ or "")
    parser.add_argument("files", nargs="+", metavar="FILE.npz")
    args = parser.parse_args()
    outputs, gradients = [0.0], [0.0]
    columns = "{:<32} {:<9} {:>11} {:>9} {:>9}  {}"
    print(columns.format("file", "execution", "probability", "loss", "gradient", "worst tensor"))
    for path in args.files:
        for execution, errors in compare(read_recording(path)).items():
            shown = [
                "-" if e is None else f"{e:.1e}"
                for e in (errors.probability, errors.loss, errors.gradient)
            ]
            print(columns.format(Path(path).name, execution, *shown, errors.tensor or ""))
            outputs += [e for e in (errors.probability, errors.loss) if e is not None]
            gradients += [errors.gradient] if errors.gradient is not None else []
    print("-: padding contributes to this figure, so only padded execution can match")
    # NaN exceeds any bound.
    within = all(e <= OUTPUT_BOUND for e in outputs) and all(e <= GRADIENT_BOUND for e in gradients)
    finish(
        {
            "files": len(args.files),
            "worst_output": max(outputs),
            "worst_gradient": max(gradients),
            "within_bounds": within,
        },
        args.json,
    )
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())
