"""Every command: parse, call, print. Results go to stdout, progress to stderr.

Importing this package registers them with the application; they are listed by `--help` in this
order. What a command does is imported in its function, so that help, completion and the mistakes in
a command line answer at once: torch and Lightning alone take seconds.
"""

from tossctr.commands import data, training, tuning, ensemble, scoring, report  # noqa: F401, I001
