from llmfw import Plugin, hookimpl


class Example(Plugin):
    @hookimpl
    def llmfw_callbacks(self, run):
        from lightning.pytorch import Callback

        class LargestLoss(Callback):
            """Remembers the largest loss; its state is json, so a resumed run goes on with it."""

            largest = 0.0

            def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
                self.largest = max(self.largest, float(outputs["loss"]))

            def state_dict(self):
                return {"largest": self.largest}

            def load_state_dict(self, state):
                self.largest = state["largest"]

        return [LargestLoss()]
