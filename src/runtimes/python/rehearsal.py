"""Lets a zygote answer a few requests to pages of its own, with the libraries that the program has imported.

Python adapts code while the code runs, and prepares classes and functions at their first use. Without a rehearsal each
child does this anew for its only request, and each write to what the zygote has made copies a page. The pages here have
nothing of the program: no code of the zip runs before a request.
"""
import sys
import time

CGI = "wsgiref.handlers"
# From 3.12 on Python adapts most code in its second run. A third run changes what the second has found out.
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
    # A page that fails ends the rehearsal, and says nothing in a log.
    app.config["PROPAGATE_EXCEPTIONS"] = True

    @app.route("/")
    def page():
        return "page %s %s" % (request.args.get("a"), request.cookies.get("a"))

    @app.get("/names/<name>")
    def named(name):
        return redirect("/", 303)

    @app.post("/form")
    def form():
        return dict(request.form), 201, {"X-Name": "a"}

    @app.post("/json")
    def json():
        return jsonify(request.get_json())

    return app


# The modules that pages need beside that of CGI.
PAGES = {plain: CGI, flask: "flask"}


class Rehearsal:
    """The requests, once the modules are there that they need."""

    def __init__(self):
        # The time that rehearsals take.
        self.seconds = 0.0
        self.done = set()

    def go_on(self, trace):
        """Rehearses the pages whose modules are there by now. To be called after each import.

        Returns whether the process is still fit. `trace` tells what the rehearsal has left in the process.
        """
        pages = [make for make, name in PAGES.items() if CGI in sys.modules and name in sys.modules]
        pages = [make for make in pages if make not in self.done]
        if not pages:
            return True
        self.done.update(pages)
        began = time.perf_counter()
        try:
            for make in pages:
                rehearse(make)
        except BaseException:
            # Another version of a library, or another library of that name.
            return False
        finally:
            self.seconds += time.perf_counter() - began
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        return not trace()


def rehearse(make):
    """Asks for each page a few times. Raises what a page raises."""
    from io import BytesIO, StringIO

    class Handler(sys.modules[CGI].BaseCGIHandler):
        def handle_error(self):
            raise

    for _ in range(ROUNDS):
        app = make()
        for method, path, query, kind, body in REQUESTS:
            environ = variables(method, path, query, kind, body)
            Handler(BytesIO(body), BytesIO(), StringIO(), environ, False, False).run(app)


def variables(method, path, query, kind, body):
    """The variables of a request, with those that the platform sets and those that most clients cause."""
    return {
        "GATEWAY_INTERFACE": "CGI/1.1", "SERVER_PROTOCOL": "HTTP/1.1", "SERVER_SOFTWARE": "rehearsal",
        "SERVER_NAME": "localhost", "SERVER_PORT": "80", "REMOTE_ADDR": "127.0.0.1", "REQUEST_METHOD": method,
        "SCRIPT_NAME": "/f/rehearsal", "PATH_INFO": path, "QUERY_STRING": query, "CONTENT_TYPE": kind,
        "CONTENT_LENGTH": str(len(body)), "HTTP_HOST": "localhost", "HTTP_ACCEPT": "*/*", "HTTP_COOKIE": "a=1; b=2",
        "HTTP_USER_AGENT": "rehearsal",
    }
