"""The algorithms behind a selection, each with its proof or its bound.

Groups by affinity (`problem`): `dynamic_program` up to 15 tasks; beyond, `column_generation` with a
`pool` of groups, `local_search` for good families and a `tree` for the proof; `cover` finds a first
family. Networks by losses: the `choice`, ties included, by `enumeration` of what the prices of a
`reduction` leave, or by integer programs (`budget_program`) where that is too much.
"""
