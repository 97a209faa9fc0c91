"""Reads a page as a browser would, and refuses what a browser would guess at."""

from html.parser import HTMLParser

VOID = {"meta", "br", "link", "img", "input", "hr"}


class Checked(HTMLParser):
    """Notes ids, tables and images, and that every element is closed in order."""

    def __init__(self, page):
        super().__init__()
        self.open, self.ids, self.images, self.headings = [], [], [], []
        self.tables = self.headed = 0
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if "id" in given:
            self.ids.append(given["id"])
        if tag == "svg":
            self.images.append(given)
        if tag == "table":
            self.tables += 1
        if tag == "caption":
            self.headed += 1
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        given = dict(attributes)
        if "id" in given:
            self.ids.append(given["id"])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag
