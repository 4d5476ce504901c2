"""The run journal as files: logs for people, metrics for programs, curves as extras."""
