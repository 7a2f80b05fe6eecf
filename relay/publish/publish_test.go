package publish

import (
	"errors"
	"strings"
	"testing"
)

const root = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"

var answers = []struct {
	name, in string
	lines    int
	err      error
}{
	{name: "progress, then the result", in: "{\"blocks\":1,\"bytes\":5,\"new\":1}\n{\"blocks\":2}\n{\"cid\":\"" + root + "\",\"url\":\"http://h/ipfs/x/\",\"new\":2}\n", lines: 2},
	{name: "an error", in: "{\"blocks\":1}\n{\"error\":\"disk full\"}\n", lines: 1, err: ErrRelay},
	{name: "cut off", in: "{\"blocks\":1}\n", lines: 1, err: ErrAnswer},
	{name: "empty", in: "", err: ErrAnswer},
	{name: "no CID", in: `{"cid":"x"}`, err: ErrAnswer},
	{name: "not JSON", in: "<html>", err: ErrAnswer},
	{name: "a line too long", in: strings.Repeat("x", maxLine+1), err: ErrAnswer},
}

func TestReadAnswer(t *testing.T) {
	for _, tt := range answers {
		t.Run(tt.name, func(t *testing.T) {
			lines := 0
			got, err := readAnswer(strings.NewReader(tt.in), func(Pulled) { lines++ })
			if !errors.Is(err, tt.err) || lines != tt.lines || err == nil && got.Cid.String() != root {
				t.Errorf("readAnswer = %+v, %v after %d lines; want %v after %d", got, err, lines, tt.err, tt.lines)
			}
		})
	}
}

func FuzzReadAnswer(f *testing.F) {
	for _, a := range answers {
		if len(a.in) < 1<<10 {
			f.Add(a.in)
		}
	}
	f.Fuzz(func(t *testing.T, in string) {
		got, err := readAnswer(strings.NewReader(in), func(Pulled) {})
		if err != nil && !errors.Is(err, ErrRelay) && !errors.Is(err, ErrAnswer) {
			t.Errorf("error of another kind: %v", err)
		}
		if err == nil && !got.Cid.Defined() {
			t.Error("accepted without a CID")
		}
	})
}
