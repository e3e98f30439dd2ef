"""Published segmentation data sets, each in the layout that its authors gave it."""
