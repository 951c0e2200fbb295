"""The tables of the contacts service and the statements over each."""
