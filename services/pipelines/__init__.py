"""Pipelines: versioned graphs of stages, and the runs of contacts and deals through them."""
