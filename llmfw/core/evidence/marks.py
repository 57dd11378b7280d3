"""Names that evidence goes by: its file, and the marks of its section in a README."""

FILE = "evidence.json"
START, END = "<!-- evidence -->", "<!-- /evidence -->"
