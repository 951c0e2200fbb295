"""The services of Millrace: one package per service, and `runtime`, which every process stands on."""
