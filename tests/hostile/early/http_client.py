"""Sends three requests that are refused before their bodies are read, by http.client. Prints each result.

Arguments: URL TOKEN TIMES.
"""

import http.client
import json
import sys
import urllib.parse

url, token, times = sys.argv[1:]
KIND = "multipart/form-data; boundary=x"


def form(size, name=None):
    named = "" if name is None else f'--x\r\ncontent-disposition: form-data; name="name"\r\n\r\n{name}\r\n'
    code = '--x\r\ncontent-disposition: form-data; name="code"; filename="a.zip"\r\n\r\n'
    return (named + code).encode() + bytes(size) + b"\r\n--x--\r\n"


def send(body, token):
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=30)
    headers = {"Content-Type": KIND}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    try:
        connection.request("POST", "/api/submit", body, headers)
        response = connection.getresponse()
        return f"{response.status} {json.load(response)['code']}"
    except Exception as error:
        return repr(error)
    finally:
        connection.close()


for _ in range(int(times)):
    print(send(form(12_000_000), token))
    print(send(form(9_900_000, "a/b"), token))
    print(send(form(9_900_000), None))
