// An API. Each request runs in a process of its own: nothing lasts in variables.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"net/http/cgi"
	"os"
	"strings"
)

func hello(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "Hello, %s!\n", strings.TrimPrefix(r.URL.Path, "/hello/"))
}

func sum(w http.ResponseWriter, r *http.Request) {
	var numbers []float64
	if err := json.NewDecoder(r.Body).Decode(&numbers); err != nil {
		http.Error(w, "the body is no JSON list of numbers", http.StatusBadRequest)
		return
	}
	total := 0.0
	for _, number := range numbers {
		total += number
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]float64{"sum": total})
}

func main() {
	mux := http.NewServeMux()
	mux.HandleFunc("/hello/", hello)
	mux.HandleFunc("/sum", sum)
	// The path has the function's own place in front.
	if err := cgi.Serve(http.StripPrefix(os.Getenv("SCRIPT_NAME"), mux)); err != nil {
		log.Fatal(err)
	}
}
