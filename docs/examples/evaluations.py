from llmfw import Evaluation, EvaluationResult, Plugin, hookimpl


class Example(Plugin):
    @hookimpl
    def llmfw_evaluations(self, run):
        def answers(policy, services):
            prompts = ["Name a river.", "2+2="]
            texts = [answer.text for answer in policy.generate(prompts, max_new_tokens=8)]
            table = [{"prompt": prompt, "answer": text} for prompt, text in zip(prompts, texts, strict=True)]
            mean = sum(map(len, texts)) / len(texts)
            return EvaluationResult(metrics={"answers/characters": mean}, tables={"answers": table})

        return [Evaluation(name="answers", run=answers, when=("start", "end"))]
