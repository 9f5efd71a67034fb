"""Compare and decide: joint, single and grouped networks side by side. NumPy only."""
