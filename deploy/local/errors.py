"""What can go wrong here. Every message is written for the person at the terminal and printed without a traceback."""


class DeployError(Exception):
    """A step failed; the message says which, why, and what to look at."""
