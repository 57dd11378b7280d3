from llmfw import Plugin, RolloutSampler, Round, hookimpl


def keep_right_answers(index, rows, policy, services, ledger):
    """Two rounds: sample four answers a problem, train on those that contain the expected one."""
    if index == 2:
        return None
    prompts = [row["prompt"] for row in rows]
    answers = ledger.generate(policy, prompts, purpose="sampling", samples=4, temperature=1.0, seed=index)
    pairs = [(rows[number // 4], answer.text) for number, answer in enumerate(answers)]
    right = [{"prompt": row["prompt"], "completion": text} for row, text in pairs if row["answer"] in text]
    return Round(records=right, start="base", notes={"right": len(right) / len(answers)})


class Example(Plugin):
    @hookimpl
    def llmfw_sampler(self, run):
        return RolloutSampler(name="keep_right_answers", next=keep_right_answers)
