from llmfw import Plugin, Service, hookimpl


class LastNumber:
    """Right if the answer's last number is the expected one."""

    def __call__(self, answer: str, expected: str) -> bool:
        numbers = [word.strip(".,") for word in answer.split() if word.strip(".,").isdigit()]
        return bool(numbers) and numbers[-1] == expected


class Example(Plugin):
    @hookimpl
    def llmfw_services(self, run):
        return [Service(protocol="AnswerVerifier", name="last_number", factory=LastNumber)]
