"""A driver that introduces itself rightly and then answers in a form that the protocol does not have."""

import json
import sys

WAY = sys.argv[1]
INTRODUCTION = {"name": "unformed", "version": "1", "capabilities": ["file", "device", "storage", "model", "generate"]}
ANSWERS = {
    "unknown_answer": {"result": {"status": "ok", "parity": "completed"}},
    "passes_everything": {"result": {"passed": True, "verdict": "CORROBORATED"}},
    "no_answer": {},
    "two_answers": {"result": {}, "error": {"code": 1, "message": "skipped"}},
}

for line in sys.stdin:
    request = json.loads(line)
    answer = {"result": INTRODUCTION} if request["method"] == "initialize" else ANSWERS[WAY]
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": request["id"], **answer}) + "\n")
    sys.stdout.flush()
