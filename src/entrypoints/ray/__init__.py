"""The service on a Ray cluster: several replicas of the engine behind one address."""
