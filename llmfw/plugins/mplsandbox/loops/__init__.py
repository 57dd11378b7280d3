"""What a policy and a sandbox do together: correct, test, translate, and look for vulnerabilities.

from llmfw.plugins.mplsandbox.loops import translate
attempts = translate(policy, sandbox, Request(code=..., lang="python", cases=[Case(stdin="4")]), "go")
print(attempts[-1].result.verdict, attempts[-1].code)
"""

from .self_correction import Attempt, self_correct
from .translation import translate
from .unit_tests import Grown, grow_tests
from .vulnerabilities import Suspicion, locate_vulnerabilities

__all__ = [
    "Attempt",
    "Grown",
    "Suspicion",
    "grow_tests",
    "locate_vulnerabilities",
    "self_correct",
    "translate",
]
