"""Sends three requests that are refused before their bodies are read, by urllib. Prints each result.

Arguments: URL TOKEN TIMES.
"""

import json
import sys
import urllib.error
import urllib.request

url, token, times = sys.argv[1:]
KIND = "multipart/form-data; boundary=x"


def form(size, name=None):
    named = "" if name is None else f'--x\r\ncontent-disposition: form-data; name="name"\r\n\r\n{name}\r\n'
    code = '--x\r\ncontent-disposition: form-data; name="code"; filename="a.zip"\r\n\r\n'
    return (named + code).encode() + bytes(size) + b"\r\n--x--\r\n"


def send(body, token):
    request = urllib.request.Request(f"{url}/api/submit", body, {"Content-Type": KIND})
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        return f"{urllib.request.urlopen(request, timeout=30).status}"
    except urllib.error.HTTPError as error:
        return f"{error.code} {json.load(error)['code']}"
    except Exception as error:
        return repr(error)


for _ in range(int(times)):
    print(send(form(12_000_000), token))
    print(send(form(9_900_000, "a/b"), token))
    print(send(form(9_900_000), None))
