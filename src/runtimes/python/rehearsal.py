"""Lets a zygote answer a few requests to pages of its own, with the libraries that the program has imported for its own.

Python adapts code while the code runs, and prepares classes and functions at their first use. Without a rehearsal each
child does this anew for its only request, and each write to what the zygote has made copies a page. The pages here have
nothing of the program: no code of the zip runs before a request.
"""
import sys
import time

CGI = "wsgiref.handlers"
# Python adapts most code in its second run. A third run changes what the second has found out.
ROUNDS = 3
FORM, JSON = "application/x-www-form-urlencoded", "application/json"
REQUESTS = (
    ("GET", "/", "a=1&b=2", "", b""),
    ("GET", "/names/a", "", "", b""),
    ("POST", "/form", "", FORM, b"a=1&b=2"),
    ("POST", "/json", "", JSON, b'{"a": [1, "b", null]}'),
    ("GET", "/none", "", "", b""),
)


def plain():
    """A page by the standard library alone."""

    def page(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"page"]

    return page


def flask():
    """Pages by Flask."""
    from flask import Flask, jsonify, redirect, request

    app = Flask("__main__")

    @app.route("/")
    def page():
        return "page %s %s" % (request.args.get("a"), request.cookies.get("a"))

    @app.get("/names/<name>")
    def one(name):
        return redirect("/", 303)

    @app.post("/form")
    def form():
        return dict(request.form), 201, {"X-Name": "a"}

    @app.post("/json")
    def json():
        return jsonify(request.get_json())

    return app


def bottle():
    """Pages by Bottle."""
    from bottle import Bottle, request

    app = Bottle()

    @app.route("/")
    def page():
        return "page %s %s" % (request.query.a, request.get_cookie("a"))

    @app.get("/names/<name>")
    def one(name):
        return name

    @app.post("/form")
    def form():
        return dict(request.forms)

    @app.post("/json")
    def json():
        return request.json

    return app


PAGES = {"flask": flask, "bottle": bottle}


class Rehearsal:
    """The requests, once the modules are there that they need."""

    def __init__(self):
        # How long the rehearsals took.
        self.seconds = 0.0
        self.is_done = set()

    def go_on(self):
        """Rehearses what was not rehearsed before. To be called after each import."""
        if CGI not in sys.modules:
            return
        for make in (plain, *(PAGES[name] for name in PAGES if name in sys.modules)):
            if make not in self.is_done:
                self.is_done.add(make)
                began = time.perf_counter()
                rehearse(make)
                self.seconds += time.perf_counter() - began


def rehearse(make):
    from io import BytesIO, StringIO

    try:
        for _ in range(ROUNDS):
            app = make()
            for method, path, query, kind, body in REQUESTS:
                environ = variables(method, path, query, kind, body)
                handler = sys.modules[CGI].BaseCGIHandler(BytesIO(body), BytesIO(), StringIO(), environ, False, False)
                handler.run(app)
    except Exception:
        # A version of a library that has other names. The program's own pages may be right.
        pass


def variables(method, path, query, kind, body):
    """The variables of a request, with those that the platform sets and those that most clients cause."""
    return {
        "GATEWAY_INTERFACE": "CGI/1.1", "SERVER_PROTOCOL": "HTTP/1.1", "SERVER_SOFTWARE": "rehearsal",
        "SERVER_NAME": "localhost", "SERVER_PORT": "80", "REMOTE_ADDR": "127.0.0.1", "REQUEST_METHOD": method,
        "SCRIPT_NAME": "/f/rehearsal", "PATH_INFO": path, "QUERY_STRING": query, "CONTENT_TYPE": kind,
        "CONTENT_LENGTH": str(len(body)), "HTTP_HOST": "localhost", "HTTP_ACCEPT": "*/*", "HTTP_COOKIE": "a=1; b=2",
        "HTTP_USER_AGENT": "rehearsal",
    }
