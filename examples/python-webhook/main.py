"""Takes GitHub's webhooks, signed with the secret WEBHOOK_SECRET."""
import hashlib
import hmac
import json
import os
import sys


def answer(status, text):
    print(f"Status: {status}\nContent-Type: text/plain\n\n{text}")
    sys.exit()


body = sys.stdin.buffer.read()
signature = hmac.new(os.environ["WEBHOOK_SECRET"].encode(), body, hashlib.sha256).hexdigest()
if not hmac.compare_digest("sha256=" + signature, os.environ.get("HTTP_X_HUB_SIGNATURE_256", "")):
    answer("401 Unauthorized", "the signature is not that of the body")
event, payload = os.environ.get("HTTP_X_GITHUB_EVENT", ""), json.loads(body)
answer("200 OK", f"{event} of {payload['repository']['full_name']}")
