"""Use cases, written against the domain and its ports alone."""
