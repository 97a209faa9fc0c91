"""Every command: parse, call, print. Results go to stdout, progress to stderr.

Importing this package registers them with the application; they are listed by `--help` in this
order.
"""

from tossctr.commands import data, training, tuning, ensemble, scoring, report  # noqa: F401, I001
