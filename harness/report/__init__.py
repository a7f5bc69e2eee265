"""What people see: the terminal, Markdown and HTML, the report page and the attention page.

No list of surrogates, measures or experiments belongs here. Start with `terminal.py`, then `page.py`.
"""
