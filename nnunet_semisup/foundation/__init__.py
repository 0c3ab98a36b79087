"""Load frozen models pretrained on other data, and what they say of classes and images."""
