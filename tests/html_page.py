"""A page of HTML as tests read it."""

from html.parser import HTMLParser


class Page(HTMLParser):
    """Checks that tags balance; collects what an element points to, and the text."""

    def __init__(self, html):
        super().__init__()
        self.open, self.links, self.text, self.tags = [], [], [], []
        self.feed(html)
        self.close()
        assert self.open == [], "tags left open"
        self.text = " ".join(" ".join(self.text).split())

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in ("meta", "link", "input", "br", "hr", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        names = ("src", "href", "srcset", "xlink:href", "data", "action", "poster")
        self.links += [value for name, value in attrs if name in names]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes something else, line {self.getpos()}"

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.text.append(data)

    def named(self, tag, style):
        return [a for t, a in self.tags if t == tag and style in a.get("class", "").split()]
