package wire

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
)

const vectorsFile = "../../vectors/kapokmq.json"

// vector is one row of the wire. A "same" one has steps; a "mended" one has them twice.
type vector struct {
	Name     string  `json:"name"`
	Kind     string  `json:"kind"`
	Row      string  `json:"row"`
	Verdict  string  `json:"verdict"`
	Server   string  `json:"server"`
	Steps    []step  `json:"steps"`
	Original *mended `json:"original"`
	Ours     *mended `json:"ours"`
}

type mended struct {
	Does  string `json:"does"`
	Steps []step `json:"steps"`
}

// step is one thing done or seen; which fields count depends on Do.
type step struct {
	Do         string            `json:"do"`
	As         string            `json:"as"`
	Of         []string          `json:"of"`
	Then       string            `json:"then"`
	Path       string            `json:"path"`
	Headers    map[string]string `json:"headers"`
	Extensions *string           `json:"extensions"`
	Status     int               `json:"status"`
	Text       *string           `json:"text"`
	Parts      []part            `json:"parts"`
	Fragments  []string          `json:"fragments"`
	Frame      string            `json:"frame"`
	Data       string            `json:"data"`
	How        string            `json:"how"`
	For        float64           `json:"for"`
	Within     float64           `json:"within"`
	Method     string            `json:"method"`
	Key        *string           `json:"key"`
	Form       map[string]string `json:"form"`
	Multipart  map[string]string `json:"multipart"`
	Type       string            `json:"type"`
	Body       *string           `json:"body"`
	Retry      float64           `json:"retry"`
}

// part is a piece of a frame: text, bytes in hex, or one string many times.
type part struct {
	Text   string `json:"text"`
	Hex    string `json:"hex"`
	Repeat string `json:"repeat"`
	Count  int    `json:"count"`
}

// payload makes the bytes that a step sends or expects; placeholders are not yet replaced.
func (s step) payload() (string, error) {
	switch {
	case s.Text != nil:
		return *s.Text, nil
	case s.Parts == nil:
		return "", errors.New("neither text nor parts")
	}
	var b strings.Builder
	for _, p := range s.Parts {
		b.WriteString(p.Text)
		b.WriteString(strings.Repeat(p.Repeat, p.Count))
		raw, err := hex.DecodeString(p.Hex)
		if err != nil {
			return "", err
		}
		b.Write(raw)
	}
	return b.String(), nil
}

// load reads the vectors and refuses a file that says less than it seems to.
func load() ([]vector, error) {
	text, err := os.ReadFile(vectorsFile)
	if err != nil {
		return nil, err
	}
	var file struct {
		Protocol string   `json:"protocol"`
		Format   int      `json:"format"`
		Vectors  []vector `json:"vectors"`
	}
	decoder := json.NewDecoder(strings.NewReader(string(text)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&file); err != nil {
		return nil, err
	}
	if file.Protocol != "kapokmq" || file.Format != 1 {
		return nil, fmt.Errorf("protocol %q, format %d", file.Protocol, file.Format)
	}
	names := map[string]bool{}
	for _, v := range file.Vectors {
		if names[v.Name] {
			return nil, fmt.Errorf("%s: twice", v.Name)
		}
		names[v.Name] = true
		same := v.Verdict == "same" && len(v.Steps) > 0 && v.Original == nil && v.Ours == nil
		changed := v.Verdict == "mended" && v.Steps == nil &&
			v.Original != nil && len(v.Original.Steps) > 0 && v.Ours != nil && len(v.Ours.Steps) > 0
		if !same && !changed {
			return nil, fmt.Errorf("%s: verdict %q does not fit its steps", v.Name, v.Verdict)
		}
	}
	return file.Vectors, nil
}

// expected picks the steps for the server at hand.
func (v vector) expected(original bool) []step {
	switch {
	case v.Verdict == "same":
		return v.Steps
	case original:
		return v.Original.Steps
	default:
		return v.Ours.Steps
	}
}
