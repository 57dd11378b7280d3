from llmfw import Command, Plugin, hookimpl


def build():
    import click  # inside: `llmfw --help` reads the card's [commands] table and imports no plugin

    @click.command("greet", help="Greet somebody.")
    @click.argument("name")
    def greet(name: str) -> None:
        click.echo(f"hello {name}")

    return greet


class Example(Plugin):
    @hookimpl
    def llmfw_commands(self):
        return [Command(name="greet", help="Greet somebody.", factory=build)]
