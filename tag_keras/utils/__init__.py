"""What all rooms use, and what knows nothing of networks: checks, files, words."""
