"""The web server, as far as nodes speak to it. As in ComfyUI, `PromptServer.instance` exists once one was made."""


class PromptServer:
    instance: "PromptServer"

    def __init__(self, loop=None):
        PromptServer.instance = self
        self.client_id = None
        self.last_node_id = None
        self.said: list[tuple] = []  # for tests: what a browser would have got

    def send_sync(self, event, data, sid=None):
        self.said.append((event, data))

    def send_progress_text(self, text, node_id: str, sid=None):
        self.said.append((text, node_id))
