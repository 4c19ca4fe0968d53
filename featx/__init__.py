"""featx: from a folder of labelled images to a classifier that its user can defend."""

__version__ = "0.1.0"
