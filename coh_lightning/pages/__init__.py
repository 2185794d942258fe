"""HTML pages: one shell (Content-Security-Policy, escaping, dark mode) over Jinja2 templates."""
