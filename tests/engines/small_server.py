"""An OpenAI-compatible server that repeats the prompt, or does wrong: `small_server.py PORT MODE`."""

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

PORT, MODE = int(sys.argv[1]), sys.argv[2]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(200 if MODE != "unhealthy" else 503, b"{}")

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if MODE == "dies":
            sys.stdout.write("out of luck\n")
            sys.stdout.flush()
            self.server.socket.close()
            sys.exit(7)
        if MODE == "refuses" or request["max_tokens"] < 0:
            return self.answer(400, b'{"error": "wrong request"}')
        if MODE == "breaks":
            return self.answer(500, b"<html>oops</html>")
        if MODE == "short":
            return self.answer(200, b'{"choices": []}')
        if MODE.startswith("cut"):
            return self.answer_cut(request["max_tokens"])
        prompt = request.get("prompt") or request["messages"][-1]["content"]
        said = {"message": {"content": prompt}} if "messages" in request else {"text": json.dumps(prompt)}
        usage = {"prompt_tokens": len(prompt), "completion_tokens": 1}
        body = {"choices": [said | {"finish_reason": "stop"}], "usage": usage}
        return self.answer(200, json.dumps(body).encode())

    def answer_cut(self, count):
        """The ids 64 429 867 are `a` and an emoji of two; text that ends within it lacks it, or has U+FFFD."""
        if MODE == "cut-refuses" and count > 2:
            return self.answer(400, b'{"error": "too long"}')
        whole = "b\N{PARTY POPPER}" if MODE == "cut-otherwise" else "a\N{PARTY POPPER}"
        broken = "a\ufffd" if MODE == "cut-marked" else "a"
        usage = {"prompt_tokens": 1} | ({} if MODE == "cut-untold" else {"completion_tokens": min(count, 3)})
        choice = {"text": broken if count == 2 else whole, "finish_reason": "length"}
        return self.answer(200, json.dumps({"choices": [choice], "usage": usage}).encode())

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


if MODE == "exits":
    sys.exit("no model fits here")
if MODE == "sleeps":
    time.sleep(60)
HTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
