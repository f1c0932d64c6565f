"""How far a run is and what it has cost, for a terminal, a log, `rushes status` and Prometheus."""
