"""RUIE and its baselines: sequential recommendation over several scenarios."""
