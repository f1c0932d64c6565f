"""People compare the samples of an ablation two by two (`rushes vote`), and what their votes come to.

contest.py      what there is to compare
blind.py        ids that tell a voter nothing, and sides that are balanced
booth.py        what a voter is asked next
votes.py        the file of votes
server.py       the page of this machine;  pack.py  a folder for voters elsewhere;  page/  what both show
games.py, replays.py, bradley_terry.py      behind curate/voting/elo.py: ratings with intervals
opinion.py      what the votes say
voters.py       how far voters agree, and which of them press one side
"""
