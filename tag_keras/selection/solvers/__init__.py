"""The algorithms behind a selection, each with its proof or its bound.

Groups by affinity: `dynamic_program` up to 15 tasks, `column_generation` beyond. Networks by
losses: `budget_program`.
"""
