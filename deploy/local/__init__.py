"""The local deployment: PostgreSQL, every service and Envoy on one machine, from one command."""
