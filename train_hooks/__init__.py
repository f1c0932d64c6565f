"""The finetuning stage: recipes, inflation, feeding, objectives, loop, export, sampling.

It reads shards by path and imports nothing else of ours. Importing this package is light; torch comes with
`train_hooks.train`.
"""
