"""Contacts, the accounts they work for and the stages they stand on: the records that carry custom_fields."""
