"""Identity: organisations, the people in them, and what proves who is calling: tokens and API keys."""
