"""Custom fields: what an organisation may keep on its records beside their own members, and the rules of the values."""
