"""From a data set to an honest comparison: trainers, label budgets, seeds and plans."""
