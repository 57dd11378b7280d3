"""Analysis of programs by kept tools inside the sandbox in the paper's five categories (2410.23074)."""

from .engine import analyze
from .records import CATEGORIES, Analysis, Category, Finding, ToolReport

__all__ = ["CATEGORIES", "Analysis", "Category", "Finding", "ToolReport", "analyze"]
