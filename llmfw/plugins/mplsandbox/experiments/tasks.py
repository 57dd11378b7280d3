"""Thirty small functions that a small model may get right: what is wanted, the answer, and random inputs."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from ..records import Case

VISIBLE, HIDDEN = 3, 10
"""Tests that a choice may see, and tests that only judge it."""
Make = Callable[[Random], Any]


@dataclass(frozen=True, kw_only=True)
class Task:
    """A function to write.

    Attributes:
        wants: what it returns, as the prompt says it.
        solution: the answer; its parameters are the function's.
        makes: one input for each parameter.
    """

    name: str
    wants: str
    solution: Callable[..., Any]
    makes: tuple[Make, ...]

    @property
    def head(self) -> str:
        """``def name(parameters):``"""
        return f"def {self.name}({', '.join(inspect.signature(self.solution).parameters)}):"

    @property
    def prompt(self) -> str:
        """What a model is asked; it shows the visible tests."""
        shown = "\n".join(
            f"{self.name}({', '.join(map(repr, case.args))}) == {case.expected!r}" for case in self.visible
        )
        return f"Write a Python function `{self.head[4:-1]}` that returns {self.wants}. Examples:\n{shown}"

    @property
    def visible(self) -> list[Case]:
        """The tests that the prompt shows."""
        return self._cases()[:VISIBLE]

    @property
    def hidden(self) -> list[Case]:
        """Tests with other inputs."""
        return self._cases()[VISIBLE:]

    def _cases(self) -> list[Case]:
        """The same in every process; no input comes twice."""
        random, found = Random(f"mplsandbox {self.name}"), dict[str, Case]()
        while len(found) < VISIBLE + HIDDEN:
            args = [make(random) for make in self.makes]
            found.setdefault(repr(args), Case(args=args, expected=self.solution(*args)))
        return list(found.values())


def _whole(low: int, high: int) -> Make:
    return lambda random: random.randint(low, high)


def _numbers(random: Random) -> list[int]:
    return [random.randint(-20, 20) for _ in range(random.randint(1, 8))]


def _words(random: Random) -> list[str]:
    return [_word(random) for _ in range(random.randint(1, 5))]


def _word(random: Random) -> str:
    return "".join(random.choice("abcdeinorstABE") for _ in range(random.randint(1, 9)))


def _palindrome_or_not(random: Random) -> str:
    half = _word(random)
    return half + half[::-1] if random.random() < 0.5 else half


def _sentence(random: Random) -> str:
    return " ".join(_words(random))


def _task(name: str, wants: str, solution: Callable[..., Any], *makes: Make) -> Task:
    return Task(name=name, wants=wants, solution=solution, makes=makes)


def _fibonacci(n: int) -> int:
    a, b = 0, 1
    for _ in range(n):
        a, b = b, a + b
    return a


def _distinct(numbers: Sequence[int]) -> list[int]:
    return list(dict.fromkeys(numbers))


TASKS: tuple[Task, ...] = (
    _task("add", "the sum of a and b", lambda a, b: a + b, _whole(-50, 50), _whole(-50, 50)),
    _task("double", "two times n", lambda n: 2 * n, _whole(-50, 50)),
    _task("square", "the square of n", lambda n: n * n, _whole(-20, 20)),
    _task("larger", "the larger of a and b", lambda a, b: max(a, b), _whole(-50, 50), _whole(-50, 50)),
    _task("is_even", "True if n is even, else False", lambda n: n % 2 == 0, _whole(-50, 50)),
    _task("absolute", "the absolute value of n", lambda n: abs(n), _whole(-50, 50)),
    _task("total", "the sum of a list of numbers", lambda numbers: sum(numbers), _numbers),
    _task("largest", "the largest number of a list", lambda numbers: max(numbers), _numbers),
    _task("smallest", "the smallest number of a list", lambda numbers: min(numbers), _numbers),
    _task("spread", "the largest minus the smallest number of a list",
          lambda numbers: max(numbers) - min(numbers), _numbers),
    _task("count_items", "how many numbers a list has", lambda numbers: len(numbers), _numbers),
    _task("count_positive", "how many numbers of a list are above 0",
          lambda numbers: sum(n > 0 for n in numbers), _numbers),
    _task("evens", "the even numbers of a list, in order",
          lambda numbers: [n for n in numbers if n % 2 == 0], _numbers),
    _task("squares", "the square of each number of a list",
          lambda numbers: [n * n for n in numbers], _numbers),
    _task("reverse_list", "a list in reverse order", lambda numbers: numbers[::-1], _numbers),
    _task("sort_down", "a list sorted from the largest to the smallest number",
          lambda numbers: sorted(numbers, reverse=True), _numbers),
    _task("distinct", "a list without repeated numbers, in the order of their first occurrence", _distinct,
          lambda random: [random.randint(0, 4) for _ in range(random.randint(2, 9))]),
    _task("second", "the second smallest number of a list with distinct numbers",
          lambda numbers: sorted(numbers)[1],
          lambda random: random.sample(range(-20, 20), random.randint(2, 7))),
    _task("reverse_text", "a text in reverse order", lambda text: text[::-1], _word),
    _task("is_palindrome", "True if a text reads the same backwards, else False",
          lambda text: text == text[::-1], _palindrome_or_not),
    _task("count_vowels", "how many vowels (aeiou, also in capitals) a text has",
          lambda text: sum(one in "aeiouAEIOU" for one in text), _word),
    _task("upper", "a text in capital letters", lambda text: text.upper(), _word),
    _task("first_letter", "the first letter of a text", lambda text: text[0], _word),
    _task("count_words", "how many words a sentence has", lambda text: len(text.split()), _sentence),
    _task("longest_word", "the longest word of a list; of equally long ones the first",
          lambda words: max(words, key=len), _words),
    _task("join_words", "the words of a list joined by a hyphen", lambda words: "-".join(words), _words),
    _task("factorial", "the factorial of n", lambda n: math.factorial(n), _whole(0, 12)),
    _task("fibonacci", "the n-th Fibonacci number, where the 0th is 0 and the 1st is 1", _fibonacci,
          _whole(0, 20)),
    _task("digit_sum", "the sum of the decimal digits of a positive number n",
          lambda n: sum(map(int, str(n))), _whole(1, 99999)),
    _task("is_prime", "True if n is a prime number, else False",
          lambda n: n > 1 and all(n % d for d in range(2, math.isqrt(n) + 1)), _whole(1, 60)),
)  # fmt: skip
