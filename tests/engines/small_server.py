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
        prompt = request.get("prompt") or request["messages"][-1]["content"]
        said = {"message": {"content": prompt}} if "messages" in request else {"text": json.dumps(prompt)}
        usage = {"prompt_tokens": len(prompt), "completion_tokens": 1}
        body = {"choices": [said | {"finish_reason": "stop"}], "usage": usage}
        return self.answer(200, json.dumps(body).encode())

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
