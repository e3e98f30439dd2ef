"""What web pages are made of: sections, columns, figures in one style, and the HTML around them.

A system's ``report`` module describes its own sections and columns with these;
:mod:`geodapt.report` puts them together.
"""
