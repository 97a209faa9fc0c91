"""One self-contained HTML page that says whether a run is good, and why."""
