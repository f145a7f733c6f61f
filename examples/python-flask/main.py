"""A web application. Each request runs in a process of its own: nothing lasts in variables."""
from wsgiref.handlers import CGIHandler

from flask import Flask, jsonify, redirect, request, url_for

app = Flask(__name__)


@app.get("/")
def home():
    return '<form method="post" action="greet"><input name="name"><button>Greet</button></form>'


@app.post("/greet")
def greet():
    return redirect(url_for("hello", name=request.form["name"]), 303)


@app.get("/hello/<name>")
def hello(name):
    return f"Hello, {name}!\n"


@app.post("/sum")
def add():
    return jsonify(sum=sum(request.get_json()))


@app.get("/headers")
def headers():
    return jsonify(dict(request.headers))


CGIHandler().run(app)
