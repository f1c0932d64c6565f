"""Which thresholds make a better model: the same small training on many subsets of a run's clips (`rushes ablate`).

asked.py        the options of the command, merged with an earlier plan in the same folder
axis.py         a measure, its good side, and the rule that drops a share
heldout.py      the clips that losses are measured on
plan.py         the subsets and their random controls: clips and measures in, a grid out
verdict.py      the answer for each axis from the held-out losses
results.py      the folder RUN/ablate/NAME: plan, losses, votes, verdict
sample_scores.py    scores of the samples by the run's own measures
report.py       the data of the report page

train_hooks/ablation.py and train_hooks/judge.py train and measure; the command is curate/cli/ablate.py.
"""
