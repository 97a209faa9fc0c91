"""`python -m tossctr`."""

from tossctr.cli import main

main()
