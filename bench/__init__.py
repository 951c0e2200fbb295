"""Measurements: our rpcs as ratios to what the runtime alone can do, and to PostgreSQL running the same SQL."""
