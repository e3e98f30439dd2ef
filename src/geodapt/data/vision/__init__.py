"""Pictures with masks and boxes: one contract of columns, and loaders that keep it.

>>> from geodapt.data.vision import PictureFolderSettings, load_picture_folder
>>> data = load_picture_folder(  # doctest: +SKIP
...     PictureFolderSettings(images="photos", masks="labels", classes="classes.txt")
... )
>>> data.rows[0]["mask"], data.classes.names  # doctest: +SKIP
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
