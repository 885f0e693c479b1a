// Answers, one JSON line for each question on stdin, what the real parsers say: Go's regexp, which Calico compiles
// interface patterns with, and Calico's selector language.
package main

import (
	"bufio"
	"encoding/json"
	"os"
	"regexp"

	"github.com/projectcalico/calico/libcalico-go/lib/selector"
)

type question struct {
	Regexp   *string             `json:"regexp"`
	Selector *string             `json:"selector"`
	Labels   []map[string]string `json:"labels"`
}

type answer struct {
	Valid   bool   `json:"valid"`
	Matches []bool `json:"matches"`
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	out := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		var asked question
		if err := json.Unmarshal(lines.Bytes(), &asked); err != nil {
			panic(err)
		}
		found := answer{Matches: []bool{}}
		if asked.Regexp != nil {
			_, err := regexp.Compile(*asked.Regexp)
			found.Valid = err == nil
		} else if parsed, err := selector.Parse(*asked.Selector); err == nil {
			found.Valid = true
			for _, labels := range asked.Labels {
				found.Matches = append(found.Matches, parsed.Evaluate(labels))
			}
		}
		if err := out.Encode(found); err != nil {
			panic(err)
		}
	}
}
