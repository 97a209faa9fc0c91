"""Every command: parse, call, print. Results go to stdout, progress to stderr.

Importing this package registers them with the application, in the order of `--help`. Each function
imports what it runs, as torch takes seconds: help, completion and usage errors answer at once.
"""

from tossctr.commands import data, training, tuning, ensemble, scoring, report  # noqa: F401, I001
