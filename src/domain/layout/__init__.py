"""How tensors are cut over the ranks of a job, and how one cut becomes another."""
