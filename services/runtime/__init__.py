"""What every process stands on and no domain shows in: settings, database, errors, tokens, outbox, server, logs."""
