"""The finetuning stage: inflation, objectives, recipes, feeding, loop and export. Reads shards by path; imports nothing else of ours."""
