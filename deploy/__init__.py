"""Ways to run Millrace: one package per kind of deployment."""
