"""The services of Millrace: one package per service, and `runtime`, which every process stands on."""

SERVICES = ("identity", "fields", "contacts", "forms", "pipelines")
"""Every service, each the package `services.<name>`, in the order of their migrations."""
