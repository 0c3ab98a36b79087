"""From imagesUn to preprocessed cases: checks, plans, folds, preprocessing."""
