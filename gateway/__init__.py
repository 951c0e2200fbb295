"""The gateway: Envoy's configuration, and what fills it in."""
