"""The laws that every plugin of this kind keeps; llmfw's kit knows them."""

from __future__ import annotations

from collections.abc import Callable

from llmfw.testing import parametrize_with_checks


@parametrize_with_checks(["my_method"])
def test_it_keeps_the_law(check: Callable[[], None]) -> None:
    check()
