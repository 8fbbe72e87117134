"""Is the candidate slower? Pure judges of launch times.

`contrasts` makes one figure a process of its blocks; `decision` judges such figures, of one gate or of thousands of simulated ones, by
the same functions; `groups` cuts blocks into groups and refuses what cannot be judged; `samples` judges a whole file of samples;
`stored_ratio` judges the ratios of a run against approved ones.
"""
