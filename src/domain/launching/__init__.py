"""Rules of starting a job of several ranks."""
