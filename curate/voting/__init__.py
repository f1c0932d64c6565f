"""Votes of people on pairs of samples of an ablation (`rushes vote`), and ratings from the votes.

contest.py      the contestants and their videos
blind.py        anonymous ids and balanced sides
booth.py        the next question for a voter
votes.py        the file of votes
server.py       the local server;  pack.py  a folder for voters elsewhere;  page/  the page of both
elo.py          ratings with intervals, from games.py, replays.py and bradley_terry.py
opinion.py      summaries of the votes by group and question
voters.py       agreement between voters, and voters with a bias to one side
"""
