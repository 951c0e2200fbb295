"""Forms: families of versioned questionnaires, what was answered, and where the answers go on a record."""
