"""Models that travel: nnU-Net's zip with a card, and its checked installation."""
