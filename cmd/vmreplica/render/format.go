package render

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"vmreplica/internal/failure"
)

// Format is how results are written.
type Format string

// The formats.
const (
	Table Format = "table"
	Wide  Format = "wide"
	JSON  Format = "json"
	YAML  Format = "yaml"
)

// Formats are all of them, as an operator names them.
var Formats = []string{string(Table), string(Wide), string(JSON), string(YAML)}

// ParseFormat reads a format's name; class Invalid when there is none of that name.
func ParseFormat(name string) (Format, error) {
	switch format := Format(name); format {
	case Table, Wide, JSON, YAML:
		return format, nil
	}
	return "", failure.New(failure.Invalid, failure.ReasonInvalidArgument, "there is no output format %q", name).
		Try("Use -o with one of %s.", strings.Join(Formats, ", "))
}

// Printer writes results to one place in one format. Now gives the present time and the zone in which times are
// shown.
type Printer struct {
	Out    io.Writer
	Format Format
	Now    func() time.Time
}

// ClearScreen puts a terminal's cursor at the top left and empties what is below.
func (p Printer) ClearScreen() error { return p.write([]byte("\x1b[H\x1b[J")) }

// ForMachines says whether the format is read by programs.
func (p Printer) ForMachines() bool { return p.Format == JSON || p.Format == YAML }

// Message writes m in a format for programs, or what text makes of it for people.
func (p Printer) Message(m proto.Message, text func(*Page)) error {
	encode := encodeMessage
	if p.Format == YAML {
		encode = encodeYAML
	}
	return p.print(func() ([]byte, error) { return encode(m) }, text)
}

// Value is Message for what no agent said: a value that encoding/json can write.
func (p Printer) Value(value any, text func(*Page)) error {
	return p.print(func() ([]byte, error) {
		compact, err := json.Marshal(value)
		if err != nil || p.Format == YAML {
			return blockStyle(compact, err)
		}
		return indented(compact)
	}, text)
}

func (p Printer) print(encode func() ([]byte, error), text func(*Page)) error {
	if p.ForMachines() {
		encoded, err := encode()
		if err != nil {
			return p.unencoded(err)
		}
		return p.write(encoded)
	}
	page := &Page{now: p.Now(), wide: p.Format == Wide}
	text(page)
	return p.write([]byte(page.text.String()))
}

// Line writes m as one line of JSON, or as one YAML document.
func (p Printer) Line(m proto.Message) error { return p.line(encodeCompact(m)) }

// valueLine is Line for what no agent said: a value that encoding/json can write.
func (p Printer) valueLine(value any) error { return p.line(json.Marshal(value)) }

func (p Printer) line(compact []byte, err error) error {
	if p.Format != YAML {
		if err != nil {
			return p.unencoded(err)
		}
		return p.write(append(compact, '\n'))
	}
	document, err := blockStyle(compact, err)
	if err != nil {
		return p.unencoded(err)
	}
	return p.write(append([]byte("---\n"), document...))
}

func (p Printer) write(text []byte) error {
	if _, err := p.Out.Write(text); err != nil {
		return failure.New(failure.Internal, failure.ReasonInternal, "write the answer: %w", err)
	}
	return nil
}

func (p Printer) unencoded(err error) error {
	return failure.New(failure.Internal, failure.ReasonInternal, "encode the answer as %s: %w", p.Format, err)
}

// encodeCompact is protojson without the spaces that it varies on purpose.
func encodeCompact(m proto.Message) ([]byte, error) {
	varied, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(m)
	if err != nil {
		return nil, err
	}
	var compact bytes.Buffer
	err = json.Compact(&compact, varied)
	return compact.Bytes(), err
}

func encodeMessage(m proto.Message) ([]byte, error) {
	compact, err := encodeCompact(m)
	if err != nil {
		return nil, err
	}
	return indented(compact)
}

func indented(compact []byte) ([]byte, error) {
	var text bytes.Buffer
	if err := json.Indent(&text, compact, "", "  "); err != nil {
		return nil, err
	}
	text.WriteByte('\n')
	return text.Bytes(), nil
}

func encodeYAML(m proto.Message) ([]byte, error) { return blockStyle(encodeCompact(m)) }

// blockStyle writes JSON, which is YAML already, as people write YAML.
func blockStyle(compact []byte, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	var document yaml.Node
	if err := yaml.Unmarshal(compact, &document); err != nil {
		return nil, err
	}
	plain(&document)
	var text bytes.Buffer
	encoder := yaml.NewEncoder(&text)
	encoder.SetIndent(2)
	if err := encoder.Encode(&document); err != nil {
		return nil, err
	}
	return text.Bytes(), encoder.Close()
}

// plain drops braces and quotes where YAML can do without.
func plain(node *yaml.Node) {
	node.Style = 0
	for _, child := range node.Content {
		plain(child)
	}
}
