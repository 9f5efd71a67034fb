"""Networks and layers that decide what of one network each task uses."""
