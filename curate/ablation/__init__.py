"""Which thresholds make a better model: the same small training on many subsets of a run's clips (`rushes ablate`).

asked.py        what was typed, and what an earlier plan has settled
axis.py         a measure, its good side, and the rule that drops a share
heldout.py      which clips to judge on
plan.py         which subsets, and their random controls        clips and measures in, a grid out
verdict.py      what the held-out losses say                    losses in, an answer for each axis out
results.py      the folder RUN/ablate/NAME: plan, losses, votes, and the answer of all of them
sample_scores.py    the samples, scored by the run's own measures
report.py       what the report page is told of it

The trainings themselves are train_hooks/ablation.py and train_hooks/judge.py; the command that joins both is curate/cli/ablate.py.
"""
