"""One table model, and what writes it: Markdown, terminal, LaTeX."""
