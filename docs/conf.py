"""The documentation site: Sphinx over the Markdown of this folder. ``scripts/build_site.py`` runs it."""

project = "llmfw"
copyright = "the llmfw authors"
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["tested", "examples", "evidence/*.json"]
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
html_theme = "furo"
html_title = "llmfw"
html_show_sphinx = False
html_copy_source = False
# indented blocks are commands, rows and equations by turns
highlight_language = "text"
nitpicky = True
# Python blocks with a shell's prompt, and yaml with `...`, are shown as they are
suppress_warnings = ["misc.highlighting_failure"]
