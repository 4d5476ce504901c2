"""What users touch: command line, Python API, servers. Translation only."""
