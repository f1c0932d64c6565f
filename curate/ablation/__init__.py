"""Which thresholds make a better model: the same small training on many subsets of a run's clips (`rushes ablate`).

plan.py         which subsets, which clips to judge on          clips and measures in, a grid out
verdict.py      what the held-out losses say                    losses in, an answer for each axis out
results.py      the folder RUN/ablate/NAME: plan, losses, votes, and the answer of all of them
report.py       what the report page is told of it

The trainings themselves are train_hooks/ablation.py and train_hooks/judge.py; the command that joins both is curate/cli/ablate.py.
"""
