"""The rules of training: data layouts, schedules, optimizers, checkpoints on disk."""
