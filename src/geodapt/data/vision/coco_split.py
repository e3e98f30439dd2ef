"""COCO's categories as detection with an open vocabulary splits them.

Source: Bansal et al. 2018, "Zero-shot object detection"; the lists are those published with Detic.
"""

NOVEL = (5, 6, 17, 18, 21, 22, 28, 32, 36, 41, 47, 49, 61, 63, 76, 81, 87)
"""Ids of the 17 categories that training never shows."""

BASE = (
    *(1, 2, 3, 4, 7, 8, 9, 15, 16, 19, 20, 23, 24, 25, 27, 31, 33, 34, 35, 38, 42, 44, 48),
    *(50, 51, 52, 53, 54, 55, 56, 57, 59, 60, 62, 65, 70, 72, 73, 74, 75, 78, 79, 80, 82, 84),
    *(85, 86, 90),
)
"""Ids of the 48 that it shows. The other 15 of the 80 are left out."""
