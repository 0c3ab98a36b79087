"""What is wrong with a case, with a data set."""
