"""Numbers about a running gateway: sampled, formatted, shown."""
