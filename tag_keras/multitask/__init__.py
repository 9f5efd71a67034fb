"""Train one network: losses, labels, metrics and logs by task."""
