"""Task Routing: each task uses a part of the channels of every layer (Strezoski et al. 2019)."""
