"""The edges of the domain: what it asks of the world, as small protocols in domain types."""
